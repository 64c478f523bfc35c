package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/harkbus/hark/driver"
)

var replyCommand = command{
	name: "reply", args: "NAME", about: "answer requests with a command",
	long: `Each request is the standard input of a shell command, and the command's output is
the answer; if the command fails, the answer is an error. Several processes that
reply to one name share the requests. Each process answers them one at a time.`,
	setup: func(fs *flag.FlagSet) action {
		f := urlFlags(fs)
		line := fs.String("exec", "", "`command` that answers")
		count := fs.Int("count", 0, "end after this `number` of requests; 0 for never")
		return func(ctx context.Context, words []string, s Streams) error {
			name, err := oneName(words, "requests")
			switch {
			case err != nil:
				return err
			case *line == "":
				return usageError{errors.New("--exec is missing: the command that answers")}
			case *count < 0:
				return usageError{errors.New("--count must not be negative")}
			}
			return f.with(ctx, s.Err, func(conn driver.Conn) error {
				asked, ok := conn.(driver.Requester)
				if !ok {
					return fmt.Errorf("%w: engine %s: requests", driver.ErrUnsupported, conn.Info().Engine)
				}
				r, err := asked.Respond(ctx, name, 1)
				if err != nil {
					return err
				}
				announce(s, "answering "+name)
				for n := 0; *count == 0 || n < *count; n++ {
					calls, err := r.Receive(ctx, 1)
					if err != nil {
						return err
					}
					data, err := piped(ctx, *line, calls[0].Data, s, "HARK_REQUEST="+name)
					answer := withData(driver.Message{}, data)
					if err != nil {
						fmt.Fprintln(s.Err, "hark:", err)
						answer.Headers = map[string]string{errorHeader: err.Error()}
					}
					if err := calls[0].Answer(context.WithoutCancel(ctx), answer); err != nil {
						return err
					}
				}
				return r.Close(ctx)
			})
		}
	},
}

// errorHeader carries the text of a responder's error.
const errorHeader = "hark-error"
