//go:build race

package broker

// raceEnabled says that the race detector slows everything down.
const raceEnabled = true

// With the race detector a password takes a second to check, and the server asks a
// client that takes two whether it is still there, which no client understands yet.
func init() { nobody = []byte("$2a$04$7EqJtq98hPqEX7fNZaFWoO5rwVt1X4JYv8QJ3r0L6m3v9yN1bX4aG") }
