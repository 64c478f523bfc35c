package main

import (
	"fmt"
	"os"
)

// progress tells a terminal how far the benchmark is; nothing else wants to
// know.
type progress struct {
	f *os.File // nil if it is no terminal
}

func newProgress(f *os.File) progress {
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		f = nil
	}
	return progress{f}
}

// say replaces what was said before.
func (p progress) say(format string, args ...any) {
	if p.f != nil {
		fmt.Fprintf(p.f, "\r%-78s\r", fmt.Sprintf(format, args...))
	}
}
