// Package cli is the hark command: one file for each noun.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
)

// Streams are where a command reads and writes. In may be nil for a command
// that does not read.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// root is the whole command line. A new command is a variable of type command
// in a file of its own, and one word here.
var root = command{
	name:  "hark",
	about: "typed messaging for Go",
	subs:  []command{serveCommand, pubCommand, subCommand, routeCommand, userCommand, contextCommand, filterCommand, demoCommand, versionCommand},
}

// usageError is a call that was not understood.
type usageError struct{ error }

// errInterrupted says that the user ended the command.
var errInterrupted = errors.New("interrupted")

// Run runs the command that args, without the program's name, stand for and
// returns the exit code: 0 done, 1 failed, 2 not understood, 130 interrupted.
// A command ends soon after ctx does.
func Run(ctx context.Context, args []string, s Streams) int {
	err := root.dispatch(ctx, aliased(args), s)
	var usage usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.As(err, &usage):
		fmt.Fprintln(s.Err, "hark:", err)
		return exitUsage
	}
	fmt.Fprintln(s.Err, "hark:", err)
	return exitFailed
}

// aliased returns args with what people try first in the form in which it is
// handled: hark help X is hark X --help, and hark --version is hark version.
func aliased(args []string) []string {
	if len(args) == 0 {
		return args
	}
	switch args[0] {
	case "help":
		return append(append([]string{}, args[1:]...), "--help")
	case "--version", "-version", "-v":
		return append([]string{"version"}, args[1:]...)
	}
	return args
}
