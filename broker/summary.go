package broker

import (
	"fmt"
	"strings"
)

// Summary describes a running broker on one screen: where it listens, where it
// stores, and what it routes.
func (b *Broker) Summary() string {
	c := b.config.Load()
	var s strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&s, "  %-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&s, "hark broker, started in %v\n\n", b.took.Round(100_000))
	if b.store != nil {
		line("messages", "hark://%s%s", b.Addr(), guarded(c))
	} else {
		line("engine", "%s  (%s %s)", b.where(), b.conn.Info().Engine, b.conn.Info().Server)
	}
	secure := ""
	if c.TLS.Cert != "" {
		secure = "s"
	}
	if a := b.HTTPAddr(); a != nil {
		line("HTTP", "http%s://%s  /healthz /readyz /metrics /v1/openapi.json", secure, a)
	} else {
		line("HTTP", "off")
	}
	if a := b.MQTTAddr(); a != "" {
		line("MQTT", "mqtt%s://%s", secure, a)
	}
	if a := b.WebSocketAddr(); a != "" {
		line("WebSocket", "ws%s://%s", secure, a)
	}
	if b.store != nil {
		line("data", "%s", b.store.Dir())
	}
	if c.Cluster.Listen != "" {
		line("cluster", "%s as %s, on %s", c.Cluster.Name, c.Name, b.store.Server().ClusterAddr())
	}
	if c.file != "" {
		line("config", "%s", c.file)
	} else {
		line("config", "none (%s is not here): defaults, the environment and flags", DefaultFile)
	}
	list(&s, "topics", len(c.Topics), func(i int) string { return c.Topics[i].summary() })
	list(&s, "routes", len(c.Routes), func(i int) string { return c.Routes[i].summary(i) })
	list(&s, "webhooks", len(c.Webhooks), func(i int) string { return c.Webhooks[i].summary() })
	return s.String()
}

func guarded(c *Config) string {
	switch {
	case len(c.Users) > 0 && c.TLS.Cert != "":
		return fmt.Sprintf("  (TLS, %s)", userCount(len(c.Users)))
	case len(c.Users) > 0:
		return fmt.Sprintf("  (%s)", userCount(len(c.Users)))
	case c.TLS.Cert != "":
		return "  (TLS, no users: whoever connects may do everything)"
	}
	return "  (no users: whoever connects may do everything)"
}

// maxListed is how many topics or routes the summary shows.
const maxListed = 8

func list(s *strings.Builder, name string, n int, item func(i int) string) {
	if n == 0 {
		fmt.Fprintf(s, "  %-9s none\n", name)
		return
	}
	for i := range min(n, maxListed) {
		if i > 0 {
			name = ""
		}
		fmt.Fprintf(s, "  %-9s %s\n", name, item(i))
	}
	if n > maxListed {
		fmt.Fprintf(s, "  %-9s and %d more\n", "", n-maxListed)
	}
}

func (t *TopicConfig) summary() string {
	parts := []string{t.Name, t.Durability}
	if t.Age > 0 {
		parts = append(parts, "for "+short(t.Age))
	}
	if t.Bytes > 0 {
		parts = append(parts, "up to "+shortSize(t.Bytes))
	}
	if t.Count > 0 {
		parts = append(parts, fmt.Sprintf("up to %d messages", t.Count))
	}
	if t.PerKey > 0 {
		parts = append(parts, fmt.Sprintf("up to %d of each key", t.PerKey))
	}
	if t.PerTopic > 0 {
		parts = append(parts, fmt.Sprintf("up to %d of each topic", t.PerTopic))
	}
	return strings.Join(parts, "  ")
}

func (r *RouteConfig) summary(i int) string {
	name := r.Name
	if name == "" {
		name = fmt.Sprint(i + 1)
	}
	text := name + ": " + r.From
	if r.Where != "" {
		text += " where " + strings.Join(strings.Fields(r.Where), " ")
	}
	if r.Sample > 0 {
		text += fmt.Sprintf(", %v%% of them", r.Sample*100)
	}
	if len(r.To) > 0 {
		text += " → " + strings.Join(r.To, ", ")
	}
	if r.Mode == modeMove {
		text += " (moved)"
	}
	if len(r.Otherwise) > 0 {
		text += ", otherwise → " + strings.Join(r.Otherwise, ", ")
	}
	return text
}

func userCount(n int) string {
	if n == 1 {
		return "1 user"
	}
	return fmt.Sprintf("%d users", n)
}
