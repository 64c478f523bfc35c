// Command bench measures hark against its peers, side by side in one process:
//
//	go run -C bench . [-runs 6] [-only regexp] [-contender regexp] [-messages n] [-scale 1] [-engines] [-cpuprofile file] [-out results] [-add]
//
// See README.md for what is measured and how.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"regexp"
	"runtime/pprof"
)

func main() {
	serveIfAsked()
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	runs := flag.Int("runs", 6, "timed `runs` of each contender")
	only := flag.String("only", "", "measure only the workloads whose name matches this `regexp`")
	messages := flag.Int("messages", 0, "timed `messages` of one run; 0 leaves them to the workload. Slow contenders get fewer, and where the number is a part of the question it stays")
	scale := flag.Float64("scale", 1, "multiply the messages of workloads by this `factor`")
	contender := flag.String("contender", "", "measure only the contenders whose name matches this `regexp`; without the baseline there are no ratios")
	profile := flag.String("cpuprofile", "", "write a profile of this process to this `file`; that of engines is another one")
	engines := flag.Bool("engines", false, "measure engines, over a server in another process, instead of what happens in this one")
	add := flag.Bool("add", false, "leave in the results what they say of workloads that are not measured this time")
	out := flag.String("out", "results", "`folder` for the results; empty for none")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	peers, peerErr := regexp.Compile(*contender)
	switch {
	case err != nil:
		log.Fatalf("-only: %v", err)
	case peerErr != nil:
		log.Fatalf("-contender: %v", peerErr)
	case flag.NArg() > 0:
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	case *runs < 1 || *messages < 0 || *scale <= 0:
		log.Fatal("-runs must be at least 1, -messages at least 0, -scale above 0")
	}
	if *engines {
		workloads = engineWorkloads
	}
	stop := startProfile(*profile)
	report, err := measure(pattern, peers, *runs, func(w *workload) int {
		switch {
		case w.fixed:
			return w.messages
		case *messages > 0:
			return *messages
		}
		return max(int(float64(w.messages)**scale), 1)
	}, newProgress(os.Stderr))
	stop()
	if err != nil {
		log.Fatal(err)
	}
	flag.Visit(func(f *flag.Flag) {
		if f.Name != "out" && f.Name != "add" && f.Name != "cpuprofile" { // these do not affect the figures
			report.Flags = append(report.Flags, fmt.Sprintf("-%s='%s'", f.Name, f.Value))
		}
	})
	name := "inprocess"
	switch {
	case *engines:
		name = "engines"
	case report.onlyRoutes():
		name = "routes"
	}
	if *add && *out != "" {
		earlier, err := readReport(*out, name)
		switch {
		case err == nil:
			report.keep(earlier)
		case !errors.Is(err, fs.ErrNotExist):
			log.Fatalf("-add: %v", err)
		}
	}
	fmt.Print(report.markdown())
	if *out != "" {
		if err := report.write(*out, name); err != nil {
			log.Fatal(err)
		}
	}
}

// startProfile starts a CPU profile into the named file. The returned function
// stops it. If the name is empty, both do nothing.
func startProfile(name string) (stop func()) {
	if name == "" {
		return func() {}
	}
	f, err := os.Create(name)
	must(err)
	must(pprof.StartCPUProfile(f))
	return func() {
		pprof.StopCPUProfile()
		must(f.Close())
	}
}
