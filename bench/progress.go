package main

import (
	"fmt"
	"os"
)

// progress shows on a terminal how far the benchmark is. Without a terminal it
// does nothing.
type progress struct {
	f *os.File // nil if it is not a terminal
}

func newProgress(f *os.File) progress {
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		f = nil
	}
	return progress{f}
}

// say replaces the previous text.
func (p progress) say(format string, args ...any) {
	if p.f != nil {
		fmt.Fprintf(p.f, "\r%-78s\r", fmt.Sprintf(format, args...))
	}
}
