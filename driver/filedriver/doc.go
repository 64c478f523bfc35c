// Package filedriver keeps the topics of hark in a directory, without a server
// to install: it runs a NATS server inside the process, which listens nowhere,
// and speaks to it through package natsdriver. Importing it, if only for its
// effect, makes hark.Open understand file: URLs:
//
//	file:PATH[?lease=DURATION]
//
// PATH is a directory, relative to the working directory unless it begins with
// a slash; it is made if need be. Characters that have a meaning in URLs are
// percent-encoded: a # is %23. What lease means is said in package natsdriver.
//
// One process at a time has the directory. Others are refused with ErrInUse;
// for them there is the broker, hark serve.
//
// # Durability
//
// Strict, the default: a publishing call returns when its messages are on disk.
// They survive the loss of power. The disk is written once for all calls that
// wait at the same time.
//
// Relaxed: a publishing call returns when the operating system has its messages.
// They survive the end of the process at any moment, and are on disk a second
// later.
//
// Memory: until the connection is closed.
//
// The places of groups are written in the background; after a crash a group may
// get messages again that it had done. A delayed message is on disk while it waits
// and within a second after it is due.
//
// # Damage
//
// A directory that was closed has a list of its files, which opening compares
// with what is there: their sizes, and the checksums of the newest 32 MiB. What
// differs is ErrDamaged, and the text names the file; nothing is changed. After
// a crash there is no list: then streams that cannot be read and records that
// are cut or mangled are found, but not a byte that has changed within a message.
package filedriver
