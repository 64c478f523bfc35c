// Package disk writes to the disk what a NATS server of this process has stored:
// the server hands messages to the operating system before it acknowledges them,
// and to the disk some time later, or each on its own. A Streams does that for
// all who wait at the same time together.
package disk
