package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// report is the outcome of a run of the benchmark.
type report struct {
	Machine machine
	Flags   []string // flags given to the command
	Runs    int
	Rows    []row
	Earlier []part `json:",omitempty"` // earlier reports that some of the rows come from
}

// part says how an earlier report was made.
type part struct {
	Machine machine
	Flags   []string
	Runs    int
}

func newReport(runs int) *report { return &report{Machine: thisMachine(), Runs: runs} }

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# hark and its peers, side by side\n\n%v. Medians of %d runs, contenders taking turns; only messages that a handler got count. Reproduce with `%s`; `README.md` says what is measured.\n", r.Machine, r.Runs, command(r.Flags))
	if len(r.Earlier) > 0 {
		b.WriteString("\nOther workloads were measured before, each with all of its contenders:\n\n")
	}
	for _, p := range r.Earlier {
		fmt.Fprintf(&b, "- %v, medians of %d runs: `%s`\n", p.Machine, p.Runs, command(p.Flags))
	}
	for _, w := range workloads {
		for part := range w.units {
			r.table(&b, &w, w.partName(part))
		}
	}
	r.goals(&b)
	return b.String()
}

// command returns the command that makes a report again.
func command(flags []string) string {
	switch {
	case len(flags) == 0:
		return "make bench"
	case len(flags) == 1 && flags[0] == "-engines='true'":
		return "make bench-engines"
	}
	return "go run -C bench . " + strings.Join(flags, " ")
}

// keep adds the results of an earlier report for workloads that this one has
// not measured.
func (r *report) keep(earlier *report) {
	measured := func(x row) bool {
		return slices.ContainsFunc(r.Rows, func(y row) bool { return y.Workload == x.Workload })
	}
	rows := slices.DeleteFunc(slices.Clone(earlier.Rows), measured)
	if len(rows) == 0 {
		return
	}
	r.Rows = append(r.Rows, rows...)
	r.Earlier = append(slices.Clone(earlier.Earlier), part{earlier.Machine, earlier.Flags, earlier.Runs})
}

// readReport reads what write has written.
func readReport(dir, name string) (*report, error) {
	data, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		return nil, err
	}
	r := new(report)
	return r, json.Unmarshal(data, r)
}

// onlyRoutes reports whether only routes were measured, which have a file of
// their own.
func (r *report) onlyRoutes() bool {
	return !slices.ContainsFunc(r.Rows, func(x row) bool { return !strings.HasPrefix(x.Workload, "routes, ") })
}

func (r *report) table(b *strings.Builder, w *workload, name string) {
	rows := slices.DeleteFunc(slices.Clone(r.Rows), func(x row) bool { return x.Workload != name })
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n", name)
	if n := len(rows[0].Runs); n < r.Runs {
		fmt.Fprintf(b, "\nMedians of %d runs.\n", n)
	}
	if w.note != "" {
		fmt.Fprintf(b, "\n%s\n", w.note)
	}
	headings := []string{"contender", rows[0].Unit, "lowest–highest"}
	allocs := slices.ContainsFunc(rows, func(x row) bool { return x.Allocs >= 0 })
	disorder := slices.ContainsFunc(rows, func(x row) bool { return x.Disorder > 0 })
	if allocs {
		headings = append(headings, "allocs")
	}
	if w.baseline != "" {
		headings = append(headings, "× "+w.baseline)
	}
	if disorder {
		headings = append(headings, "out of order")
	}
	fmt.Fprintf(b, "\n| %s |\n|---|%s\n", strings.Join(headings, " | "), strings.Repeat("---:|", len(headings)-1))
	for _, x := range rows {
		cells := []string{x.Peer, short(x.Figure), short(slices.Min(x.Runs)) + "–" + short(slices.Max(x.Runs))}
		if allocs {
			cells = append(cells, fmt.Sprintf("%.2f", x.Allocs))
		}
		if w.baseline != "" {
			cells = append(cells, ratio(x.Ratio))
		}
		if disorder {
			cells = append(cells, percent(x.Disorder))
		}
		fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
	}
}

func (r *report) goals(b *strings.Builder) {
	var lines []string
	unknown := 0
	for _, g := range goals {
		want, got, met, ok := g.verdict(r.Rows)
		if !ok {
			unknown++
			continue
		}
		verdict := "**missed**"
		if met {
			verdict = "met"
		}
		lines = append(lines, fmt.Sprintf("| %s | %s | %s | %s | %s |\n", g.workload, g.contender, want, got, verdict))
	}
	if len(lines) > 0 {
		fmt.Fprintf(b, "\n## Goals\n\n| work | contender | goal | measured | |\n|---|---|---|---:|---|\n%s", strings.Join(lines, ""))
	}
	if unknown > 0 {
		fmt.Fprintf(b, "\nNot measured this time: %d of %d goals.\n", unknown, len(goals))
	}
}

func short(x float64) string {
	if x < 99.95 {
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

func ratio(x float64) string {
	switch {
	case x == 0:
		return ""
	case x < 0.1:
		return fmt.Sprintf("%.4f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

func percent(x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f %%", 100*x)
}

// write writes the report to name.md and name.json in dir.
func (r *report) write(dir, name string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".md"), []byte(r.markdown()), 0o644)
}
