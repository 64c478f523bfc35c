//go:build !race

package broker

// raceEnabled says that the race detector slows everything down.
const raceEnabled = false
