// Package filelock locks files against other processes.
package filelock

import "errors"

// ErrLocked means that another process holds the lock.
var ErrLocked = errors.New("locked")
