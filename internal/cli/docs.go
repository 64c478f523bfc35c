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

This is what ` + "`hark help`" + ` and ` + "`hark COMMAND --help`" + ` print, written by ` + "`make cli`" + `; a test fails when it says something else.

What a command produces goes to standard output, everything about it to standard error; a progress line is shown on terminals only. A command that waits for a broker says so there when that takes half a second: for what, where and until when. Where nobody listens it waits 3 s, since a broker may have been started just now, for an answer 10 s, and then ends with 1. When a connection is lost later, commands say so and wait until it is back, or until their ` + "`--timeout`" + ` is over, which is 124. Flags may stand before, between and behind other words; what follows ` + "`--`" + ` is no flag.
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
