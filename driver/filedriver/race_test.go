//go:build race

package filedriver

// raceEnabled says that the race detector slows everything down.
const raceEnabled = true
