// Package testdata has the real messages that the demo, the examples and the
// tests run on; see README.md for where they are from.
package testdata

import _ "embed"

// GitHubWebhooks has 329 deliveries of GitHub webhooks, one JSON object
// {"event": string, "payload": object} a line.
//
//go:embed github-webhooks.jsonl
var GitHubWebhooks []byte
