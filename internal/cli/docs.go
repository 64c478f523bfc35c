package cli

import (
	"bytes"
	"fmt"
	"strings"
)

// markdown returns the help of all commands as one document.
func markdown() string {
	var b bytes.Buffer
	b.WriteString(`# The command line

This page is the output of ` + "`hark help`" + ` and ` + "`hark COMMAND --help`" + `, written by ` + "`make cli`" + `; a test fails when it is out of date.

Commands write results to standard output and everything else to standard error; progress is shown on terminals only. A command that waits for a broker for half a second says so on standard error: for what, where and until when. It waits 3 s if nobody listens, since the broker may just be starting, and 10 s for an answer, and then exits with 1, even if its ` + "`--timeout`" + ` is over before that: 124 means that there was a connection, and not in time what it waited for. If a connection is lost later, the command says so and waits until it is back, or exits with 124 when its ` + "`--timeout`" + ` is over. Flags may come before, between and after other words; words after ` + "`--`" + ` are not flags.
`)
	var walk func(c command)
	walk = func(c command) {
		c.path = strings.TrimSpace(c.path + " " + c.name)
		fmt.Fprintf(&b, "\n## %s\n\n```text\n", c.path)
		c.help(&b, c.flags())
		b.WriteString("```\n")
		for _, sub := range c.subs {
			sub.path = c.path
			walk(sub)
		}
	}
	walk(root)
	return b.String()
}
