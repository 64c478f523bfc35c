package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/harkbus/hark/driver"
)

var requestCommand = command{
	name: "request", args: "NAME [DATA]", about: "send a request, and print the answer",
	long: `It sends DATA, or the whole input, to one of the responders of that name. It exits
with 3 if there are none, and with 1 if the answer is an error.`,
	setup: func(fs *flag.FlagSet) action {
		f := urlFlags(fs)
		headers := headerFlag{}
		fs.Var(headers, "header", "`name=value` of a header; may be given several times")
		timeout := timeoutFlag(fs, 10*time.Second, "for the answer")
		output := outputFlag(fs, "raw", "json")
		return func(ctx context.Context, words []string, s Streams) error {
			name, data, err := nameAndData(words, "NAME")
			if err != nil {
				return err
			}
			text, err := dataOrInput(ctx, data, s)
			if err != nil {
				return err
			}
			wait, cancel := bounded(ctx, *timeout)
			defer cancel()
			return f.with(wait, s.Err, func(conn driver.Conn) error {
				asker, ok := conn.(driver.Requester)
				if !ok {
					return fmt.Errorf("%w: engine %s: requests", driver.ErrUnsupported, conn.Info().Engine)
				}
				m := withData(driver.Message{Headers: headers}, text)
				answer, err := asker.Request(wait, name, m)
				switch {
				case errors.Is(err, driver.ErrNoResponders):
					return nothing("nobody answers requests of the name %s", name)
				case err != nil && wait.Err() != nil:
					return context.Cause(wait)
				case err != nil:
					return err
				}
				if text, failed := answer.Headers[errorHeader]; failed {
					return fmt.Errorf("%s answers: %s", name, text)
				}
				if *output == "json" {
					return printJSON(s.Out, map[string]any{"name": name, "data": jsonData(answer.Data)})
				}
				_, err = s.Out.Write(append(answer.Data, '\n'))
				return err
			})
		}
	},
}
