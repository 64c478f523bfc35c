package cli

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"net/url"
)

var webhookCommand = command{
	name: "webhook", about: "list the webhooks of a broker, and turn them on and off",
	long: `Webhooks are declared in the configuration of the broker. One whose receiver answers
410 Gone is turned off. Messages of a stored topic wait until it is enabled again, or
the broker restarts.`,
	subs: []command{
		{
			name: "list", about: "list the webhooks, and what they have sent",
			setup: func(fs *flag.FlagSet) action {
				f := newAdminFlags(fs)
				return f.administer(0, 0, "nothing", func(ctx context.Context, a *admin, _ []string, s Streams) error {
					each := func(do func(entry json.RawMessage) error) error {
						var all []json.RawMessage
						if err := a.get(ctx, "/v1/webhooks", nil, &all); err != nil {
							return err
						}
						for _, entry := range all {
							if err := do(entry); err != nil {
								return err
							}
						}
						return nil
					}
					return listEach(f, s, each, "webhooks", []string{"webhook", "from", "to", "state", "waiting", "delivered", "retrying", "failed", "dead", "dropped", "last error"}, func(w *sentWebhook) []string {
						return []string{w.Name, w.From, w.Host, w.State, numberText(w.Waiting), numberText(w.Delivered), numberText(w.Retrying), numberText(w.Failed), numberText(w.Dead), numberText(w.Dropped), clipped(w.LastError, 80)}
					})
				})
			},
		},
		switchWebhook("enable", "turn a webhook on, and send what waits"),
		switchWebhook("disable", "turn a webhook off until it is enabled"),
	},
}

// switchWebhook returns the command that turns a webhook on or off.
func switchWebhook(name, about string) command {
	return command{
		name: name, args: "NAME", about: about,
		setup: func(fs *flag.FlagSet) action {
			f := newAdminFlags(fs)
			return f.administer(1, 1, "the NAME of a webhook", func(ctx context.Context, a *admin, words []string, s Streams) error {
				var w sentWebhook
				text, err := a.doText(ctx, http.MethodPost, "/v1/webhooks/"+url.PathEscape(words[0])+"/"+name, nil, nil, &w)
				if err != nil {
					return err
				}
				return f.done(s, text, "webhook %s is %s", w.Name, w.State)
			})
		},
	}
}

// sentWebhook is a webhook as the API shows it.
type sentWebhook struct {
	Name, From, Host, State    string
	Delivered, Failed, Dead    uint64
	Dropped, Retrying, Waiting uint64
	LastError                  string `json:"last_error"`
}
