package cli

import (
	"context"
	"flag"

	"github.com/harkbus/hark/testdata"
)

// demoWebhooksCommand is hark demo webhooks, which prints deliveries to publish.
var demoWebhooksCommand = command{
	name: "webhooks", about: "print real webhook deliveries to experiment with",
	long: `It prints the 329 deliveries that come with the program, one a line:

  {"event": "pull_request", "payload": {"action": "opened", …}}

They are those of @octokit/webhooks-examples 7.6.1, under the MIT licence.`,
	setup: func(*flag.FlagSet) action {
		return func(_ context.Context, _ []string, s Streams) error {
			_, err := s.Out.Write(testdata.GitHubWebhooks)
			return err
		}
	},
}
