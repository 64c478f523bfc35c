package broker

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

// configurationDoc returns the page about the configuration, generated from the tables.
func configurationDoc() string {
	var b strings.Builder
	b.WriteString(`# Configuration of the broker

<!-- Made from the tables in package broker: go test ./broker -run TestConfigurationDoc -update -->

` + "`hark serve` reads `hark.yaml` from the working directory, if it exists, or the file that `--config` or `HARK_CONFIG` names. A flag overrides an environment variable, which overrides the file, which overrides the default. `hark serve --check` reports errors with line and column, and starts nothing. On SIGHUP the broker reads everything again: topics, routes and users change all together, or not at all.\n\n" + "```yaml\n" + exampleConfig + "```\n\n" + `A time is written 90s, 12h, 7d, 2w or 1d12h, a size 1000, 64KiB, 1.5GiB or 10GB (kB, MB, GB and TB count in thousands), a fraction 10% or 0.1. Text that begins with *, > or { needs quotes, and so does a target with {…} inside [ ] or { }. Unknown variables that begin with HARK_ are ignored, and the broker reports them when it starts.

## Settings

| key | flag | variable | default | |
|---|---|---|---|---|
`)
	for _, s := range Settings() {
		def := ""
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | `--%s` | `%s` | %s | %s |\n", s.Key, s.Flag, s.Env, def, upper(s.Doc))
	}
	b.WriteString("\nAn address that other machines can reach is refused unless there are users and TLS, or `insecure` is set.\n")
	b.WriteString(severalDoc)
	section(&b, "Topics", "`topics` declares stored topics. The broker creates them when it starts; one that exists with other limits is given these. Another durability is an error, because the topic would have to be created again. Topics that are not declared are left alone.", topicFields)
	b.WriteString(storesDoc)
	section(&b, "Routes", "`routes` copies or moves messages to other topics. A route from a declared topic, or from what one declared pattern covers, is durable: messages published while the broker is down, or while a target accepts nothing, are routed later, in order, and once as long as the target remembers IDs (`dedup`). A route from other topics, or from a pattern as far as its topics are not declared, sees messages published while the broker runs, at most once.", routeFields)
	b.WriteString(templatesDoc)
	section(&b, "Webhooks", "`webhooks` sends messages to receivers, each as a CloudEvent in a signed POST request: see [gateway.md](gateway.md). From a stored topic a webhook is durable: messages published while the receiver or the broker is down are sent later.", webhookFields)
	section(&b, "Users", "`users` lists who may connect; without users, everyone may connect and do everything. `hark user NAME` generates the lines. Only what is listed is allowed; `>` alone is everything, including the server's own subjects, so it lets a user create and delete topics.", userFields)
	b.WriteString(usersDoc)
	return b.String()
}

const storesDoc = `
### Patterns

` + "```yaml" + `
topics:
  - {name: orders.eu.>, age: 30d, bytes: 10GB}   # one store for all of them
  - {name: state.*, per_topic: 1}                # the last value of each
  - {name: invoices, durability: strict}
` + "```" + `

A pattern is a *store*: all topics that match it are stored from their first message on, whoever publishes it and whether or not anyone has declared the topic. They are stored topics in every respect: groups and their places, replay, order by key, delay, deduplication, TTL, dead letters, routes, webhooks and HTTP. Programs open one with ` + "`Stored(Retention{})`" + `, and need not know that it is in a store. The differences:

- ` + "`age`, `bytes` and `count`" + ` are limits of the store: a busy topic can push out the messages of others. ` + "`per_topic`" + ` and ` + "`per_key`" + ` are limits of each topic. A program that opens a topic with its own limits is therefore refused.
- Sequences are those of the store, so those of one topic grow and have gaps. Starting at a sequence, continuing after the last event (` + "`Last-Event-ID`" + `) and seeking work as usual.
- Readers see the pattern, or one within it, as one stored topic: over HTTP and with ` + "`hark sub`" + ` they can follow it from the past, by sequence, and in groups that keep their place; a webhook from it is durable; and so is ` + "`SubscribePattern`" + ` in a program with ` + "`Durable`" + `, or with a start in the past. A pattern that several stores keep, or that is stored only in part, delivers what is published while a reader is there, and routes from it are durable as far as its topics are stored: ` + "`durable: true`" + ` refuses routes and webhooks whose messages are not all stored.
- How many messages a subscription without a group has missed because it was too slow (` + "`Dropped`" + `) is not known exactly: messages of other topics may be counted, and some that were removed at once may not.
- A topic exists as long as it has messages; its size in bytes is not known. ` + "`hark topic list`" + ` lists topics, ` + "`hark topic stores`" + ` the stores. Deleting a topic removes its messages and groups; what is published next is stored again.
- Dead letters of ` + "`orders.eu.a`" + ` go to ` + "`orders.eu.a.dead`" + `. ` + "`orders.eu.>`" + ` includes that topic, so dead letters count towards its limits and expire with its age; ` + "`orders.eu.*`" + ` does not, so they get a topic of their own. Webhooks from a pattern put all their dead letters in one topic, ` + "`webhook-NAME.dead`" + `.
- Requests whose names match are not stored, and are answered as usual; a request that nobody answers waits until its timeout, because the store receives it too. NATS clients other than hark get the server's confirmation that their request is stored as the first answer: keep their requests out of patterns.
- A route from a topic or pattern that one store covers is durable. Routes from one store share one reader, which reads all of it.
- Over NATS a user reads stored messages of a store if ` + "`subscribe`" + ` covers its pattern. A user who may subscribe to only some of its topics receives over NATS what is published there (by a pattern; by a topic's name only messages without a key), and reads stored messages over HTTP: the server lets a client read a stream as a whole or not at all. Publishing, with or without acknowledgement, can be allowed topic by topic.

A topic is in one store: patterns that overlap each other, or a topic that is declared by name, are refused. A pattern begins with a name. A pattern that is removed from the configuration continues to store, with the limits that it has, until ` + "`hark topic delete-store`" + `.
`

const severalDoc = `
### Several brokers

With ` + "`cluster.listen`" + ` the servers of several brokers form one NATS cluster, and clients may connect to any of them. Each has its own ` + "`name`" + ` and directory, and all have the same ` + "`cluster.name`" + `; ` + "`cluster.routes`" + ` names at least one that is running. A broker starts once a majority is running, and as many as ` + "`cluster.replicas`" + ` says; that setting applies to topics created from then on. Without a majority nothing can be stored, and ` + "`/readyz`" + ` answers 503. With ` + "`engine`" + ` there is no server in the process: routes and HTTP run beside existing servers, whose users and limits are their own; ` + "`users`" + ` then applies only to HTTP.

Either way, brokers with the same configuration share the work: one of them routes each message. From a stored topic, messages with the same key keep their order; those without a key may overtake each other. Messages that a broker held when it was killed are routed by the others when its lease of 30 s is over. The place of routes and webhooks that are removed from the configuration is kept, because other brokers may still need it: ` + "`hark-routes`" + ` and ` + "`webhook-NAME`" + ` are ordinary groups of the topic (` + "`hark group delete`" + `).

` + "```yaml" + `
name: hark-1
listen: 127.0.0.1:7422
data: ./hark-1
cluster:
  listen: 127.0.0.1:7423
  routes: ["127.0.0.1:7433", "127.0.0.1:7443"]
  replicas: 3
` + "```" + `
`

const exampleConfig = `topics:
  - name: orders.placed
    age: 7d
  - name: orders.eu
    bytes: 10GiB
routes:
  - name: europe
    from: orders.placed
    where: data.region == "eu" && data.total > 100
    to: [orders.eu, "region.{data.region}"]
    otherwise: orders.rest
  - name: sample
    from: web.*
    sample: 10%
    to: samples
webhooks:
  - name: billing
    from: orders.eu
    url: https://billing.example.com/hooks/orders
    secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
users:
  - name: shop
    token: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    publish: orders.>
    subscribe: [orders.>, "region.*"]
`

const templatesDoc = `
In a target, {…} is replaced by a value of the message, as one token: data.customer.id, data["odd name"], data.items[0].sku, headers.tenant, key, id, type, source, subject, topic[0] (the first token of the topic). {topic} is the whole name with its dots. Characters that a token cannot contain are percent-encoded: a dot is %2E, a space %20, and an empty value is a single %. A message without the value does not reach that target; it is counted, and if it reaches no target it goes to ` + "`otherwise`" + `.

A loop of routes is refused when it is loaded, even one that only some messages would take; the header hark-hops counts how often a message has been routed, up to ` + "`max_hops`" + `. ` + "`hark route test < messages.jsonl`" + ` shows where messages would go, without a broker.

A pattern does not match topics whose names end in .dead, unless it ends so itself ([semantics.md](semantics.md), RTE-3). A message that matches but is not in the sample counts as taken. A topic gets a message once, however many routes lead there.
`

const usersDoc = `
A user connects with name and password; a token is used like a password: hark://NAME:TOKEN@HOST. Clients other than hark must set the inbox prefix _INBOX.NAME, because no user sees the replies to others. Users can use stored topics that are declared under ` + "`topics`" + `. Answers go only to that inbox: a client that names another subject for replies is refused, unless its user may publish to everything. [A table](security.md#what-users-of-nats-need) lists what a user needs for groups, requests, channels and the rest: some features use subjects that all topics share, and need a user who may publish and subscribe to everything. An action that is not permitted returns an error that names the subject.
`

func section[T any](b *strings.Builder, title, about string, fields []field[T]) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n| key | value | default | |\n|---|---|---|---|\n", title, about)
	for _, f := range fields {
		def := ""
		if f.def != "" {
			def = "`" + f.def + "`"
		}
		value := f.value
		if f.many {
			value += ", one or a list"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.key, value, def, upper(f.doc))
	}
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func TestConfigurationDoc(t *testing.T) {
	const path = "../docs/configuration.md"
	want := configurationDoc()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s is stale (%v); write it with: go test ./broker -run TestConfigurationDoc -update", path, err)
	}
	load(t, exampleConfig)
}

// TestDefaultsOfEntries compares the defaults in the tables with the actual ones.
func TestDefaultsOfEntries(t *testing.T) {
	topic, route, hook := newTopicConfig(), newRouteConfig(), newWebhookConfig()
	for _, f := range webhookFields {
		given := hook
		if f.def == "" {
			continue
		}
		if err := f.set(&given, []string{f.def}); err != nil || !reflect.DeepEqual(given, hook) {
			t.Errorf("%s: the default is not %s: %+v, %v", f.key, f.def, hook, err)
		}
	}
	for _, f := range topicFields {
		if f.def == "" {
			continue
		}
		given := topic
		if err := f.set(&given, []string{f.def}); err != nil || given != topic {
			t.Errorf("%s: the default is not %s: %+v, %v", f.key, f.def, topic, err)
		}
	}
	for _, f := range routeFields {
		given := route
		if f.def == "" {
			continue
		}
		if err := f.set(&given, []string{f.def}); err != nil || !reflect.DeepEqual(given, route) {
			t.Errorf("%s: the default is not %s: %+v, %v", f.key, f.def, route, err)
		}
	}
}
