package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// machine says where and when a report was made.
type machine struct {
	Date       string
	CPU        string
	Cores      int
	GOMAXPROCS int
	Go         string
	Load       string // average over the minute before, "" if unknown; near 0 on a quiet machine
}

func thisMachine() machine {
	return machine{
		Date: time.Now().UTC().Format(time.DateOnly), CPU: cpuModel(),
		Cores: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0),
		Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, Load: load(),
	}
}

func (m machine) String() string {
	s := fmt.Sprintf("%s, %s, %d cores, GOMAXPROCS=%d, %s", m.Date, m.CPU, m.Cores, m.GOMAXPROCS, m.Go)
	if m.Load != "" {
		s += ", load at the start " + m.Load
	}
	return s
}

// load returns the load average of the last minute on Linux, and otherwise "".
func load() string {
	averages, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	minute, _, _ := strings.Cut(string(averages), " ")
	return minute
}

// cpuModel returns the name of the processor on Linux, and otherwise the
// architecture.
func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.SplitSeq(string(info), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
