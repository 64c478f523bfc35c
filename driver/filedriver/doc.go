// Package filedriver keeps the topics of hark in a directory, without a server
// to install: it runs a NATS server inside the process, which listens nowhere,
// and speaks to it through package natsdriver. Importing it, if only for its
// effect, makes hark.Open understand file: URLs:
//
//	file:PATH[?lease=DURATION]
//
// PATH is a directory, relative to the working directory unless it begins with
// a slash; it is made if need be. Characters that have a meaning in URLs are
// percent-encoded. What lease means is said in package natsdriver.
//
// One process at a time has the directory. Others are refused with ErrInUse;
// for them there is the broker, hark serve.
//
// # Durability
//
// Strict, the default: a publishing call returns when its messages are on disk.
// They survive the loss of power. The messages of calls that wait at the same
// time are written together.
//
// Relaxed: a message has been handed to the operating system, which survives the
// end of the process at any moment, and is on disk within a second. Those of the
// last second may be lost with the power.
//
// Memory: until the connection is closed.
//
// The places of groups are written in the background; after a crash a group may
// get messages again that it had done.
package filedriver
