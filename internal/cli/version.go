package cli

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

var versionCommand = command{
	name:  "version",
	about: "print the version",
	long:  "It prints the version of this program, and the Go release and the platform that\nit was built with and for.",
	setup: func(*flag.FlagSet) action { return printVersion },
}

func printVersion(_ context.Context, _ []string, s Streams) error {
	version := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	_, err := fmt.Fprintf(s.Out, "hark %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
