// Package cli is the hark command: one file for each noun.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/harkbus/hark/driver/natsdriver"
)

// Streams are what a command reads from and writes to. In may be nil for a command
// that does not read.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// root is the whole command line. To add a command, put a variable of type command
// in a file of its own and add its name here.
var root = command{
	name:  "hark",
	about: "typed messaging for Go",
	subs: []command{
		serveCommand, pubCommand, subCommand, requestCommand, replyCommand, chanCommand, notifyCommand, waitCommand, latchCommand, unlatchCommand, valueCommand,
		topicCommand, groupCommand, dlqCommand, routeCommand, webhookCommand, userCommand, contextCommand, filterCommand, demoCommand, benchCommand, doctorCommand, completionCommand, versionCommand,
	},
}

// Run runs the command given by args, which do not include the name of the program,
// and returns the exit code. A command ends soon after ctx does.
func Run(ctx context.Context, args []string, s Streams) int {
	if len(args) > 0 && args[0] == completeWord {
		return exitCode(ctx, printCompletions(args[1:], s))
	}
	leave := leaveLine(ctx, s.Err)
	err := root.dispatch(ctx, aliased(args), s)
	leave()
	code := exitCode(ctx, err)
	if code != exitOK && code != exitInterrupted && code != exitUnread {
		fmt.Fprintln(s.Err, "hark:", err)
		switch {
		case errors.Is(err, natsdriver.ErrNotAllowed):
			fmt.Fprintln(s.Err, `add what the user needs to users in hark.yaml: a topic to its publish or subscribe; channels, values, notifications and latches need publish: [">"] and subscribe: [">"]`)
		case code == exitFailed && errors.Is(err, context.DeadlineExceeded):
			fmt.Fprintln(s.Err, "the broker did not answer: perhaps this user may not do that; run hark doctor to find out more")
		}
	}
	return code
}

// aliased rewrites args that people try first into the form that is handled: hark
// help X is hark X --help, and hark --version is hark version.
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
