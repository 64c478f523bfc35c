//go:build !linux && !darwin

package cli

import "errors"

// freeSpace cannot tell here.
func freeSpace(string) (uint64, error) { return 0, errors.ErrUnsupported }
