// Command bench measures hark against its peers, side by side in one process:
//
//	go run -C bench . [-runs 6] [-only regexp] [-scale 1] [-out results]
//
// See README.md for what is measured and how.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"regexp"
)

func main() {
	runs := flag.Int("runs", 6, "timed runs of each contender")
	only := flag.String("only", "", "run only the workloads whose name matches this regular expression")
	scale := flag.Float64("scale", 1, "multiply the number of messages by this")
	out := flag.String("out", "results", "folder for the results; empty for none")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		log.Fatalf("bench: -only: %v", err)
	}
	report := measure(pattern, *runs, *scale, os.Stderr)
	fmt.Print(report.markdown())
	if *out != "" {
		if err := report.write(*out); err != nil {
			log.Fatalf("bench: %v", err)
		}
	}
}
