package cli

import (
	"context"
	"flag"
	"fmt"
	"runtime"

	"github.com/harkbus/hark/internal/release"
)

var versionCommand = command{
	name:  "version",
	about: "print the version",
	long:  "It prints the version of this program, and the Go release and\nplatform it was built with and for.",
	setup: func(fs *flag.FlagSet) action {
		output := outputFlag(fs, "text", "json")
		return func(_ context.Context, _ []string, s Streams) error {
			v := versionInfo{release.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			if *output == "json" {
				return printJSON(s.Out, v)
			}
			_, err := fmt.Fprintf(s.Out, "hark %s (%s %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
			return err
		}
	},
}

// versionInfo is the output of hark version.
type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}
