package broker

// RouteConfig is a rule that copies or moves messages to other topics.
type RouteConfig struct {
	// Name is what counters and logs call it, unique; empty for its number.
	Name string
	// From is a topic, or a pattern.
	From string
	// Where is a filter; empty for all messages.
	Where string
	// To are topics, possibly with templates such as region.{data.region}.
	To []string
	// Mode is copy, or move: then a message is removed from its stored topic
	// when its targets have it. Empty for copy.
	Mode string
	// Sample is the part of the messages to take, above 0 and up to 1; 0 for
	// all. Messages of one key are all taken or all not.
	Sample float64
	// Durable refuses the route unless Topics keeps all messages from From.
	Durable bool
	// Otherwise are the targets of messages that no route with the same From
	// has taken.
	Otherwise []string
}

// newRouteConfig returns the defaults of a route.
func newRouteConfig() RouteConfig { return RouteConfig{Mode: modeCopy} }

const (
	modeCopy = "copy"
	modeMove = "move"
)

var routeFields = []field[RouteConfig]{
	text("name", "text", "", "the name of the route in counters and logs; its number by default", func(r *RouteConfig) *string { return &r.Name }),
	text("from", "topic or pattern", "", "where messages come from", func(r *RouteConfig) *string { return &r.From }),
	text("where", "filter", "", "which messages to take (docs/filters.md); all by default", func(r *RouteConfig) *string { return &r.Where }),
	words("to", "topics", "where they go: one target or a list; `{…}` in a target is replaced by a value of the message, see below", func(r *RouteConfig) *[]string { return &r.To }),
	choice("mode", modeCopy, "move removes a message from its stored topic once its targets have it", func(r *RouteConfig) *string { return &r.Mode }, modeCopy, modeMove),
	scalar("sample", "percentage", "", "take this fraction of the messages that match, such as 10%; of one key all or none", func(r *RouteConfig, s string) (err error) {
		r.Sample, err = parsePercent(s)
		return err
	}),
	boolean("durable", "false", "refuse to start unless `topics` keeps all messages to route, in one topic or pattern, so that none is missed while the broker is down", func(r *RouteConfig) *bool { return &r.Durable }),
	words("otherwise", "topics", "where messages go that no route with the same `from` takes", func(r *RouteConfig) *[]string { return &r.Otherwise }),
}
