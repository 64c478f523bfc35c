//go:build !race

// Package race says to tests whether the race detector is built in, which slows
// everything down and allocates.
package race

// Enabled says whether the race detector is built in.
const Enabled = false
