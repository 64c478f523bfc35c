package broker

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/harkbus/hark/driver/natsdriver"
)

// metricsEndpoints are for Prometheus.
func metricsEndpoints() []endpoint {
	return []endpoint{{
		method: http.MethodGet, path: "/metrics", name: "getMetrics", summary: "metrics for Prometheus", access: operator,
		doc:    "The names of topics, groups and senders are labels. At most 1,000 topics, groups, routes and delayed senders each have their own series. Further senders are counted together, and other series are left out; hark_metrics_truncated is then 1.", // maxLabelled
		answer: &answer{media: "text/plain", doc: "the metrics, in the text format of Prometheus or in another one that the request accepts"},
		also:   []int{http.StatusServiceUnavailable},
		handle: func(c *call) error {
			c.broker.web.metrics.handler.ServeHTTP(c.rw, c.req.WithContext(c.ctx))
			return nil
		},
	}}
}

const (
	// maxLabelled is how many topics, groups, routes, topics for dead letters and senders
	// that were held back have numbers of their own: each is a time series that
	// Prometheus keeps.
	maxLabelled = 1000
	// collectTimeout is how long it may take to ask for the numbers of topics.
	collectTimeout = 8 * time.Second
)

// metrics are the numbers for Prometheus.
type metrics struct {
	handler  http.Handler
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(b *Broker, most int) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hark_http_requests_total", Help: "Requests over HTTP, by endpoint (operationId of the OpenAPI document) and status."}, []string{"endpoint", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hark_http_request_duration_seconds", Help: "How long requests over HTTP took, streams until they ended.", Buckets: []float64{.001, .01, .1, 1, 10},
		}, []string{"endpoint"}),
	}
	m.registry.MustRegister(
		m.requests, m.seconds, &collector{b, most},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: newErrorLog(b.log), ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 8, CoalesceGather: true,
	})
	return m
}

// observe counts a request.
func (m *metrics) observe(endpoint string, status int, took time.Duration) {
	(&endpointMetrics{all: m, name: endpoint}).observe(status, took)
}

// endpointMetrics counts the requests to an endpoint. It keeps what counts those of
// the status before, which is nearly always that of the next: to find it takes longer
// than to count.
type endpointMetrics struct {
	all  *metrics
	name string
	last atomic.Pointer[outcomeMetrics]
}

// outcomeMetrics are the numbers of the requests with one status.
type outcomeMetrics struct {
	status   int
	requests prometheus.Counter
	seconds  prometheus.Observer // whatever the status
}

// observe counts a request.
func (e *endpointMetrics) observe(status int, took time.Duration) {
	of := e.last.Load()
	if of == nil || of.status != status {
		of = &outcomeMetrics{status, e.all.requests.WithLabelValues(e.name, strconv.Itoa(status)), e.all.seconds.WithLabelValues(e.name)}
		e.last.Store(of)
	}
	of.requests.Inc()
	of.seconds.Observe(took.Seconds())
}

// collector asks for the numbers that others keep.
type collector struct {
	broker *Broker
	most   int // maxLabelled, but in tests
}

// series is a number of the broker: the one place that says what it is called.
type series struct {
	kind prometheus.ValueType
	desc *prometheus.Desc
}

func gauge(name, help string, labels ...string) series {
	return series{prometheus.GaugeValue, prometheus.NewDesc(name, help, labels, nil)}
}

func counter(name, help string, labels ...string) series {
	return series{prometheus.CounterValue, prometheus.NewDesc(name, help, labels, nil)}
}

var (
	readyGauge     = gauge("hark_ready", "1 if the broker can accept messages.")
	truncatedGauge = gauge("hark_metrics_truncated", "1 if there are too many topics, groups, routes or senders for each to have its own series.")
	streamsGauge   = gauge("hark_streams", "NATS streams: those of stored topics and channels, and a few internal ones.")
	consumersGauge = gauge("hark_consumers", "NATS consumers: those of groups, and of subscriptions to stored topics.")
	storedGauge    = gauge("hark_stored_bytes", "Bytes that are stored, on disk and in memory.")

	topicMessages = gauge("hark_topic_messages", "Messages in a stored topic.", "topic")
	topicBytes    = gauge("hark_topic_bytes", "Bytes in a stored topic; topics of stores are not included, see hark_store_bytes.", "topic")
	storeMessages = gauge("hark_store_messages", "Messages in the store of a pattern, of all topics together.", "store")
	storeBytes    = gauge("hark_store_bytes", "Bytes in the store of a pattern.", "store")
	storeStored   = counter("hark_store_stored_messages_total", "Messages stored in a store since it was created.", "store")
	topicStored   = counter("hark_topic_stored_messages_total", "Messages stored in a topic since it was created; topics of stores are not included, see hark_store_stored_messages_total.", "topic")

	groupWaiting     = gauge("hark_group_waiting_messages", "Messages that no member of a group has received.", "topic", "group")
	groupInFlight    = gauge("hark_group_in_flight_messages", "Messages that members of a group have received and not acknowledged.", "topic", "group")
	groupRedelivered = gauge("hark_group_redelivered_messages", "Messages in flight that were delivered before.", "topic", "group")
	groupOldest      = gauge("hark_group_oldest_message_age_seconds", "Age of the oldest message that is not done; 0 if all are done.", "topic", "group")

	deadLetters = gauge("hark_dead_letters", "Messages in a topic for dead letters.", "topic")

	routeMatched    = counter("hark_route_matched_messages_total", "Messages that a route took because they matched.", "route")
	routeOtherwise  = counter("hark_route_otherwise_messages_total", "Messages that a route took because no other route matched.", "route")
	routeRouted     = counter("hark_route_routed_messages_total", "Messages of a route that all of its targets have.", "route")
	routeSampledOut = counter("hark_route_sampled_out_messages_total", "Messages of a route that were not in its sample.", "route")
	routeUnresolved = counter("hark_route_unresolved_messages_total", "Messages of a route that lacked a value for the template of a target.", "route")
	routeFailed     = counter("hark_route_failed_messages_total", "Messages of a route that a target rejected.", "route")
	routeLooped     = counter("hark_route_looped_messages_total", "Messages of a route that were not routed because they had already been routed max_hops times.", "route")
	routeKept       = counter("hark_route_kept_messages_total", "Messages of a moving route that all of its targets have, but that were not removed from their topic.", "route")

	connectionsNow   = gauge("hark_connections", "Clients that are connected.")
	connectionsTotal = counter("hark_connections_total", "Clients that have connected.")
	receivedMessages = counter("hark_received_messages_total", "Messages that the server has received from clients, including those of the protocol of hark, but not those published over HTTP that no client of the server receives.")
	receivedBytes    = counter("hark_received_bytes_total", "Bytes of those.")
	sentMessages     = counter("hark_sent_messages_total", "Messages sent to clients, including those of the protocol of hark.")
	sentBytes        = counter("hark_sent_bytes_total", "Bytes of those.")
	heldBackMessages = counter("hark_held_back_messages_total", "Messages that were delayed because a user, or an address if there are no users, published more than limits.rate permits.", "user", "address")
	slowConsumers    = counter("hark_slow_consumers_total", "Clients that were disconnected because they did not read.")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, s := range []series{
		readyGauge, truncatedGauge, streamsGauge, consumersGauge, storedGauge, storeMessages, storeBytes, storeStored, topicMessages, topicBytes, topicStored,
		groupWaiting, groupInFlight, groupRedelivered, groupOldest, deadLetters,
		routeMatched, routeSampledOut, routeOtherwise, routeRouted, routeUnresolved, routeFailed, routeLooped, routeKept,
		connectionsNow, connectionsTotal, receivedMessages, receivedBytes, sentMessages, sentBytes, slowConsumers, heldBackMessages,
	} {
		out <- s.desc
	}
}

// gathering is one collection.
type gathering struct {
	*collector
	ctx       context.Context
	out       chan<- prometheus.Metric
	truncated bool
	groupsPut int
}

func (g *gathering) put(s series, value float64, labels ...string) {
	g.out <- prometheus.MustNewConstMetric(s.desc, s.kind, value, labels...)
}

// Collect implements prometheus.Collector. What cannot be had is left out, and the
// collection says so as invalid metrics.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(c.broker.web.streams, collectTimeout)
	defer cancel()
	g := &gathering{collector: c, ctx: ctx, out: out}
	for _, part := range []func() error{g.store, g.stores, g.topics, g.dead, g.routes, g.server, g.heldBack} {
		if err := part(); err != nil {
			out <- prometheus.NewInvalidMetric(readyGauge.desc, err)
		}
	}
	g.put(truncatedGauge, asNumber(g.truncated))
	g.put(readyGauge, asNumber(c.broker.unready() == ""))
}

func asNumber(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (g *gathering) store() error {
	usage, err := g.broker.conn.Usage(g.ctx)
	if err != nil {
		return err
	}
	g.put(streamsGauge, float64(usage.Streams))
	g.put(consumersGauge, float64(usage.Consumers))
	g.put(storedGauge, float64(usage.Bytes))
	return nil
}

// stores puts the numbers of stores, of their topics and of the groups on them.
func (g *gathering) stores() error {
	conn := g.broker.conn
	patterns, err := conn.Stores(g.ctx)
	if err != nil {
		return err
	}
	topicsPut := 0
	for i, pattern := range patterns {
		if i == g.most {
			g.truncated = true
			break
		}
		info, err := conn.StoreInfo(g.ctx, pattern)
		if err != nil {
			if g.ctx.Err() != nil {
				return err
			}
			continue // deleted meanwhile
		}
		g.put(storeMessages, float64(info.Messages), pattern)
		g.put(storeBytes, float64(info.Bytes), pattern)
		g.put(storeStored, float64(info.Last), pattern)
		topics, err := conn.StoreTopics(g.ctx, pattern, "")
		if err != nil {
			return err
		}
		for _, t := range topics {
			if topicsPut++; topicsPut > g.most {
				g.truncated = true
				break
			}
			g.put(topicMessages, float64(t.Messages), t.Topic)
		}
		all, err := conn.StoreGroups(g.ctx, pattern)
		if err != nil {
			return err
		}
		g.groups(all)
	}
	return nil
}

// groups puts the numbers of groups, of so many as there may be.
func (g *gathering) groups(all []natsdriver.GroupInfo) {
	for i := range all {
		if g.groupsPut++; g.groupsPut > g.most {
			g.truncated = true
			break
		}
		g.group(&all[i])
	}
}

// topics puts the numbers of topics that are in no store, and of their groups.
func (g *gathering) topics() error {
	names, next, err := g.broker.conn.TopicNames(g.ctx, natsdriver.TopicQuery{Limit: g.most, Own: true})
	if err != nil {
		return err
	}
	g.truncated = g.truncated || next != ""
	for _, name := range names {
		info, err := g.broker.conn.TopicInfo(g.ctx, name)
		if err != nil {
			if g.ctx.Err() != nil {
				return err
			}
			continue // deleted meanwhile
		}
		g.put(topicMessages, float64(info.Messages), name)
		g.put(topicBytes, float64(info.Bytes), name)
		g.put(topicStored, float64(info.Last), name)
		if info.Groups == 0 || g.groupsPut >= g.most {
			g.truncated = g.truncated || info.Groups > 0
			continue
		}
		all, err := g.broker.conn.Groups(g.ctx, name)
		if err != nil {
			return err
		}
		g.groups(all)
	}
	return nil
}

func (g *gathering) group(i *natsdriver.GroupInfo) {
	g.put(groupWaiting, float64(i.Waiting), i.Topic, i.Name)
	g.put(groupInFlight, float64(i.InFlight), i.Topic, i.Name)
	g.put(groupRedelivered, float64(i.Redelivered), i.Topic, i.Name)
	age := 0.0
	if !i.Oldest.IsZero() {
		age = max(time.Since(i.Oldest).Seconds(), 0)
	}
	g.put(groupOldest, age, i.Topic, i.Name)
}

func (g *gathering) dead() error {
	names, next, err := g.broker.conn.TopicNames(g.ctx, natsdriver.TopicQuery{Dead: true, Limit: g.most})
	if err != nil {
		return err
	}
	g.truncated = g.truncated || next != ""
	for _, name := range names {
		if info, err := g.broker.conn.TopicInfo(g.ctx, name); err == nil { // it may have been deleted
			g.put(deadLetters, float64(info.Messages), name)
		}
	}
	return g.ctx.Err()
}

func (g *gathering) routes() error {
	for i, s := range g.broker.RouteStats() {
		if i == g.most {
			g.truncated = true
			break
		}
		g.put(routeMatched, float64(s.Matched), s.Route)
		g.put(routeSampledOut, float64(s.SampledOut), s.Route)
		g.put(routeOtherwise, float64(s.Otherwise), s.Route)
		g.put(routeRouted, float64(s.Routed), s.Route)
		g.put(routeUnresolved, float64(s.Unresolved), s.Route)
		g.put(routeFailed, float64(s.Failed), s.Route)
		g.put(routeLooped, float64(s.Looped), s.Route)
		g.put(routeKept, float64(s.Kept), s.Route)
	}
	return nil
}

// server puts what the server in this process counts.
func (g *gathering) server() error {
	if g.broker.hasServer() != nil {
		return nil
	}
	v, err := g.broker.store.Server().Varz(nil)
	if err != nil {
		return err
	}
	g.put(connectionsNow, float64(v.Connections))
	g.put(connectionsTotal, float64(v.TotalConnections))
	g.put(receivedMessages, float64(v.InMsgs))
	g.put(receivedBytes, float64(v.InBytes))
	g.put(sentMessages, float64(v.OutMsgs))
	g.put(sentBytes, float64(v.OutBytes))
	g.put(slowConsumers, float64(v.SlowConsumers))
	return nil
}

// heldBack puts the numbers of clients that publish more than they may.
func (g *gathering) heldBack() error {
	p := g.broker.proxy
	if p == nil || p.rates == nil {
		return nil
	}
	for sender, n := range p.rates.heldBack() {
		user, ok := strings.CutPrefix(sender, userPrefix)
		address := ""
		if !ok {
			user, address = "", sender
		}
		g.put(heldBackMessages, float64(n), user, address)
		g.truncated = g.truncated || sender == ""
	}
	return nil
}
