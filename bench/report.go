package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// report is the outcome of a run of the benchmark.
type report struct {
	Date      string
	CPU       string
	Cores     int
	GoVersion string
	Runs      int
	Rows      []row
}

func newReport(runs int) *report {
	return &report{
		Date: time.Now().UTC().Format(time.DateOnly), CPU: cpuModel(), Cores: runtime.GOMAXPROCS(0),
		GoVersion: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, Runs: runs,
	}
}

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

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# hark and its peers, side by side\n\n%s, %s, GOMAXPROCS=%d, %s. Medians of %d runs, contenders taking turns in one process; payload three words. Reproduce with `make bench`.\n",
		r.Date, r.CPU, r.Cores, r.GoVersion, r.Runs)
	workload := ""
	for _, row := range r.Rows {
		if row.Workload != workload {
			workload = row.Workload
			fmt.Fprintf(&b, "\n## %s\n\n| contender | %s | lowest–highest | allocations a message | × %s |\n|---|---:|---:|---:|---:|\n", workload, row.Unit, baseline)
		}
		fmt.Fprintf(&b, "| %s | %s | %s–%s | %s | %s |\n", row.Peer, short(row.Figure), short(row.Low), short(row.High), allocations(row), ratio(row))
	}
	fmt.Fprintf(&b, "\nFor an idle subscription the column of allocations counts goroutines.\n\n## Goals\n\n| work | contender | goal | measured | |\n|---|---|---|---:|---|\n")
	for _, g := range goals {
		if want, got, met, ok := g.verdict(r.Rows); ok {
			verdict := "missed"
			if met {
				verdict = "met"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", g.workload, g.contender, want, got, verdict)
		}
	}
	return b.String()
}

func short(x float64) string {
	if x < 100 {
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

func allocations(r row) string {
	if r.Allocs < 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", r.Allocs)
}

func ratio(r row) string {
	if r.Ratio == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", r.Ratio)
}

// write puts the report into dir, as inprocess.md and inprocess.json.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "inprocess.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "inprocess.md"), []byte(r.markdown()), 0o644)
}
