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

// configurationDoc is the page about the configuration, made from the tables.
func configurationDoc() string {
	var b strings.Builder
	b.WriteString(`# Configuration of the broker

<!-- Made from the tables in package broker: go test ./broker -run TestConfigurationDoc -update -->

` + "`hark serve` reads `hark.yaml` from the working directory, if it is there, or the file that `--config` or `HARK_CONFIG` names. A flag comes before an environment variable, that before the file, and that before the default. `hark serve --check` says what is wrong, with line and column, and starts nothing. On SIGHUP the broker reads everything again: topics, routes and users change all together, or not at all.\n\n" + "```yaml\n" + exampleConfig + "```\n\n" + `A time is written 90s, 12h, 7d or 2w, a size 1000, 64KiB, 1.5GiB or 10GB (kB, MB, GB and TB count in thousands), a part 10% or 0.1. What begins with *, > or { needs quotes, and so does a target with {…} inside [ ] or { }. Variables that begin with HARK_ and are none of these are ignored, which is said when the broker starts.

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
	b.WriteString("\nAn address that other machines reach is refused unless there are users and TLS, or `insecure` is set.\n")
	b.WriteString(severalDoc)
	section(&b, "Topics", "`topics` declares stored topics. They are made when the broker starts; one that is there with other limits is given these. Another durability is an error: the topic would have to be made anew. Topics that are not declared are not touched.", topicFields)
	b.WriteString(storesDoc)
	section(&b, "Routes", "`routes` copies or moves messages to other topics. A route from a declared topic, or from what one declared pattern covers, is durable: what is published while the broker is down, or while a target takes nothing, is routed later, in order, and once as long as the target remembers IDs (`dedup`). A route from other topics, and from a pattern as far as its topics are not declared, sees what is published while the broker runs, at most once.", routeFields)
	b.WriteString(templatesDoc)
	section(&b, "Webhooks", "`webhooks` sends messages to receivers, each as a CloudEvent in a POST request that is signed: see [gateway.md](gateway.md). From a stored topic it is durable: what is published while the receiver or the broker is away is sent later.", webhookFields)
	section(&b, "Users", "`users` are those who may connect; without any, everybody may, and do everything. `hark user NAME` makes the lines. Nothing is allowed but what is listed; `>` alone is everything, the server's own subjects included, so it lets a user make and delete topics.", userFields)
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

A pattern is a *store*: all topics that match it are stored from their first message on, whoever publishes it and whether or not anybody has said that the topic is there. What holds for a stored topic holds for them: groups and their places, replay, order by key, delay, deduplication, TTL, dead letters, routes, webhooks and HTTP. Programs open one with ` + "`Stored(Retention{})`" + `, and need not know that it is in a store. What is different:

- ` + "`age`, `bytes` and `count`" + ` are limits of the store: a busy topic can push out what others have. ` + "`per_topic`" + ` and ` + "`per_key`" + ` are limits of each topic. So a program that opens a topic with limits of its own is refused.
- Sequences are those of the store, so those of one topic grow and have gaps. Starting at a sequence, going on behind the last event (` + "`Last-Event-ID`" + `) and seeking work as ever.
- The pattern, or one within it, is like one stored topic to whoever reads it: over HTTP and with ` + "`hark sub`" + ` it is followed from the past, by sequence, and in groups that keep their place; a webhook from it is durable; and so is ` + "`SubscribePattern`" + ` in a program with ` + "`Durable`" + `, or with a start in the past. A pattern that several stores keep, or that is stored in part, is heard while one is there, and routes from it are durable as far as its topics are stored: ` + "`durable: true`" + ` refuses routes and webhooks of which not everything is.
- How much a subscription without a group has missed because it was too slow (` + "`Dropped`" + `) is not known exactly: messages of others may be counted, and some that went at once may not.
- A topic is there as long as it has messages; how many bytes are its own is not known. ` + "`hark topic list`" + ` lists topics, ` + "`hark topic stores`" + ` the stores. Deleting a topic removes its messages and groups, and stores what is published next.
- Dead letters of ` + "`orders.eu.a`" + ` go to ` + "`orders.eu.a.dead`" + `. ` + "`orders.eu.>`" + ` has that too, so dead letters count for its limits and go with its age; ` + "`orders.eu.*`" + ` has not, so they get a topic of their own. What webhooks from a pattern give up goes to one topic, ` + "`webhook-NAME.dead`" + `.
- Requests whose names match are not stored, and are answered as ever; one that nobody answers waits until its time is over, because the store hears it too. Clients of NATS other than hark get the server's word that their request is stored as the first answer: keep their requests out of patterns.
- A route from a topic or pattern that one store covers is durable. Routes from one store are one reader, which reads all of it.
- Over NATS a user reads stored messages of a store if ` + "`subscribe`" + ` covers its pattern. Who may subscribe to some of its topics hears over NATS what is published there (by a pattern; by a topic's name only what has no key), and reads all that is stored over HTTP: the server lets a client read a stream as a whole or not at all. Publishing, with acknowledgement too, can be allowed topic by topic.

A topic is in one store: patterns that overlap each other, or a topic that is declared by name, are refused. A pattern begins with a name. One that is taken out of the configuration goes on storing, with the limits that it has, until ` + "`hark topic delete-store`" + `.
`

const severalDoc = `
### Several brokers

With ` + "`cluster.listen`" + ` the servers of several brokers are one cluster of NATS, and clients may connect to any of them. Each has a ` + "`name`" + ` and a directory of its own, and the same ` + "`cluster.name`" + `; ` + "`cluster.routes`" + ` names at least one that is there. A broker starts once a majority is, and as many as ` + "`cluster.replicas`" + ` says, which counts for topics that are made from then on. With ` + "`engine`" + ` there is no server in the process: routes and HTTP run beside servers that are there already, whose users and limits are their own; ` + "`users`" + ` then holds for HTTP alone.

Either way brokers with the same configuration share the work: each message is routed by one of them. From a stored topic the messages of a key keep their order, those without a key may overtake each other; what a broker had in hand when it was killed is routed by the others when its lease of 30 s is over. The place of routes and webhooks that are taken out of the configuration is kept, because others may still need it: ` + "`hark-routes`" + ` and ` + "`webhook-NAME`" + ` are ordinary groups of the topic (` + "`hark group delete`" + `).

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
In a target, {…} stands for a value of the message, as one token: data.customer.id, data["odd name"], data.items[0].sku, headers.tenant, key, id, type, source, subject, topic[0] (the first token of the topic). {topic} is the whole name with its dots. What a token cannot have is percent-encoded: a dot is %2E, a space %20, and an empty value is a single %. A message without the value does not reach that target; it is counted, and if it reaches none it goes to ` + "`otherwise`" + `.

A circle of routes is refused when it is loaded, also one that only some messages would take; the header hark-hops counts how often a message has been routed, up to ` + "`max_hops`" + `. ` + "`hark route test < messages.jsonl`" + ` shows where messages would go, without a broker.

A pattern does not stand for topics whose names end in .dead, unless it ends so itself ([semantics.md](semantics.md), RTE-3). A message that matches and is not in the sample counts as taken. A topic gets a message once, however many routes lead there.
`

const usersDoc = `
A user connects with name and password, where a token is a password too: hark://NAME:TOKEN@HOST. Clients that are not hark's set the inbox prefix _INBOX.NAME, because nobody sees the replies to others. Stored topics can be used by users if they are declared under ` + "`topics`" + `. Answers go to that inbox alone: a client that names another subject for replies is refused, unless its user may publish to everything. What a user needs for groups, requests, channels and the rest is [in a table there](security.md#what-users-of-nats-need): some things use subjects that are shared by all topics, and need a user who may publish and subscribe to everything. What is not permitted is an error that names the subject.
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

// TestDefaultsOfEntries holds the defaults that the tables show to those that hold.
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
