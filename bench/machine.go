package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// machine is where and when a report was made.
type machine struct {
	Date       string
	CPU        string
	Cores      int
	GOMAXPROCS int
	Go         string
}

func thisMachine() machine {
	return machine{
		Date: time.Now().UTC().Format(time.DateOnly), CPU: cpuModel(),
		Cores: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0),
		Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
	}
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %s, %d cores, GOMAXPROCS=%d, %s", m.Date, m.CPU, m.Cores, m.GOMAXPROCS, m.Go)
}

// cpuModel is what Linux calls the processor, or its architecture.
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
