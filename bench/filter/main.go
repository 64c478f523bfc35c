// Command filter measures the filters of hark beside what else there is for the
// same job, and writes the results as Markdown. Run it in the folder bench:
//
//	go run ./filter -out results/filter.md
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	out := flag.String("out", "", "file to write; standard output if empty")
	data := flag.String("data", "../testdata/github-webhooks.jsonl", "webhook deliveries, one JSON object a line")
	rounds := flag.Int("rounds", 7, "how often each candidate is timed")
	slice := flag.Duration("slice", 50*time.Millisecond, "how long each time")
	largest := flag.Int("largest", 100_000, "the most filters in a set")
	flag.Parse()

	var b strings.Builder
	fmt.Fprintf(&b, "# Filters\n\nMedians of %d rounds of %v, the candidates timed in turn in one process: %s, %s/%s, %d CPUs.\n",
		*rounds, *slice, runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	fmt.Fprintf(&b, "Ratios are to the first line of each table. Every candidate gives the same answers; that is checked before timing.\n")

	measureInto(&b, orderJob.name, orderJob.candidates(), *rounds, *slice)
	hooks := hookJob
	hooks.docs = payloads(*data)
	measureInto(&b, hooks.name, hooks.candidates(), *rounds, *slice)
	measureInto(&b, "a hundred filters of three terms, one order of 500 bytes", hundred(), *rounds, *slice)
	curves(&b, *largest, *rounds, *slice)

	w := io.Writer(os.Stdout)
	if *out != "" {
		check(os.MkdirAll(filepath.Dir(*out), 0o755))
		f, err := os.Create(*out)
		check(err)
		defer f.Close()
		w = f
	}
	_, err := io.WriteString(w, b.String())
	check(err)
}

func measureInto(b *strings.Builder, title string, cs []*candidate, rounds int, slice time.Duration) {
	measure(cs, rounds, slice)
	fmt.Fprintf(b, "\n## %s\n\n| candidate | ns per event | ratio | allocations | |\n|---|---:|---:|---:|---|\n", strings.ToUpper(title[:1])+title[1:])
	for _, c := range cs {
		fmt.Fprintf(b, "| %s | %.0f | %.2f | %.0f | %s |\n", c.name, c.median(), c.median()/cs[0].median(), c.allocs, c.note)
	}
}

func curves(b *strings.Builder, largest, rounds int, slice time.Duration) {
	b.WriteString("\n## From ten filters to a hundred thousand\n\n" +
		"Of the filters, 70 % compare one or two of five fields with a constant, 20 % ask for a range or a prefix and 10 % are general expressions, one in ten of which no index helps with. Events of about 500 bytes.\n\n" +
		"| filters | matches | filter.Set, ns per event | allocations | one after the other | one json.Unmarshal + cel-go |\n|---:|---:|---:|---:|---:|---:|\n")
	for n := 10; n <= largest; n *= 10 {
		cs, matches := curve(n)
		measure(cs, rounds, slice)
		fmt.Fprintf(b, "| %d | %.1f | %.0f | %.0f |", n, matches, cs[0].median(), cs[0].allocs)
		for i := 1; i < 3; i++ {
			if i < len(cs) {
				fmt.Fprintf(b, " %.0f |", cs[i].median())
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteByte('\n')
		runtime.GC()
	}
}

func payloads(name string) [][]byte {
	f, err := os.Open(name)
	check(err)
	defer f.Close()
	var out [][]byte
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct{ Payload json.RawMessage }
		check(json.Unmarshal(lines.Bytes(), &line))
		out = append(out, line.Payload)
	}
	check(lines.Err())
	return out
}
