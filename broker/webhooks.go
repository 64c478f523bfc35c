package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/names"
)

// webhooks runs the webhooks of a configuration.
type webhooks struct {
	conn   *natsdriver.Conn
	source string
	alone  bool // no other broker has these webhooks
	log    *slog.Logger

	mu  sync.Mutex // guards all
	all []*webhook // in the order of the configuration; replaced by a change
}

func newWebhooks(conn *natsdriver.Conn, source string, alone bool, log *slog.Logger) *webhooks {
	return &webhooks{conn: conn, source: source, alone: alone, log: log.With("part", "webhooks")}
}

// sharedConn is the broker's connection for use by a bus, which must not close it,
// and opens stored topics as they exist.
type sharedConn struct{ driver.Conn }

// OpenTopic implements driver.Conn.
func (c sharedConn) OpenTopic(ctx context.Context, t driver.TopicConfig) (driver.Topic, error) {
	if t.Stored != nil {
		asItIs := *t.Stored
		asItIs.Existing = true
		t.Stored = &asItIs
	}
	return c.Conn.OpenTopic(ctx, t)
}

// Close implements driver.Conn.
func (sharedConn) Close(context.Context) error { return nil }

// deadLetterLog logs the messages that are given up on.
type deadLetterLog struct{ log *slog.Logger }

// OnDeadLetter implements hark.DeadLetterHook.
func (l deadLetterLog) OnDeadLetter(e hark.FailEvent) {
	l.log.Error("message given up", "group", e.Subscription, "topic", e.Name, "attempts", e.Attempt, "err", e.Err)
}

// OnDrop implements hark.DropHook.
func (l deadLetterLog) OnDrop(e hark.DropEvent) {
	l.log.Error("messages dropped", "group", e.Subscription, "topic", e.Name, "count", e.Count, "reason", string(e.Reason))
}

// webhookChange is the transition between the webhooks of two configurations. The
// new webhooks have started, and the old ones have not ended.
type webhookChange struct {
	of          *webhooks
	config      *Config
	next, fresh []*webhook
}

// change begins the transition to another configuration. Unchanged webhooks go on,
// unless the topic they read becomes stored; then two send for a moment. The caller
// must call either finish or undo.
func (ws *webhooks) change(ctx context.Context, c *Config) (*webhookChange, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	step := &webhookChange{of: ws, config: c, next: make([]*webhook, len(c.Webhooks))}
	for i, cfg := range c.Webhooks {
		durable, err := ws.stored(ctx, cfg.From)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("webhook %s: %w", cfg.Name, err), step.undo(ctx))
		}
		if j := slices.IndexFunc(ws.all, func(w *webhook) bool { return w.durable == durable && reflect.DeepEqual(w.config, cfg) }); j >= 0 {
			step.next[i] = ws.all[j]
			continue
		}
		w, err := newWebhook(cfg, ws.source, ws.log)
		if err == nil {
			w.durable = durable
			err = ws.start(ctx, w)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("webhook %s: %w", cfg.Name, err), step.undo(ctx))
		}
		step.next[i] = w
		step.fresh = append(step.fresh, w)
	}
	return step, nil
}

// undo ends the new webhooks, and removes the groups created for them.
func (step *webhookChange) undo(ctx context.Context) (err error) {
	ctx, cancel := lastly(ctx)
	defer cancel()
	for _, w := range step.fresh {
		err = errors.Join(err, w.stop(ctx, ctx))
		if w.placed {
			err = errors.Join(err, step.of.conn.DeleteGroup(ctx, w.config.From, webhookGroup(w.config.Name)))
		}
	}
	return err
}

// finish ends the webhooks that are no longer in the configuration, whether or not ctx
// ends meanwhile.
func (step *webhookChange) finish(ctx context.Context) {
	ctx, cancel := lastly(ctx)
	defer cancel()
	wait, cancelWait := context.WithTimeout(ctx, stopTimeout)
	defer cancelWait()
	ws := step.of
	ws.mu.Lock()
	old := ws.all
	ws.all = step.next
	ws.mu.Unlock()
	var all sync.WaitGroup
	for _, w := range old {
		if slices.Contains(step.next, w) {
			continue
		}
		all.Go(func() {
			if err := w.stop(ctx, wait); err != nil {
				ws.log.Warn("ending a webhook failed", "webhook", w.config.Name, "err", err)
			}
			ws.forgetPlace(ctx, w, step.config)
		})
	}
	all.Wait()
}

// stored reports whether a topic is stored, or one store keeps all topics of a
// pattern.
func (ws *webhooks) stored(ctx context.Context, from string) (bool, error) {
	if names.IsPattern(from) {
		if info := ws.conn.Info(); !info.Has(driver.StoredPatterns) {
			return false, nil
		}
		store, err := ws.conn.StoreOf(ctx, from)
		return store != "", err
	}
	return ws.conn.HasTopic(ctx, from)
}

// start starts to send.
func (ws *webhooks) start(ctx context.Context, w *webhook) error {
	sameGroup := func(other *webhook) bool { return other.config.Name == w.config.Name }
	if w.durable && ws.alone && !slices.ContainsFunc(ws.all, sameGroup) {
		// Messages in flight when the broker last ended come again at once.
		if err := ws.conn.ResetGroup(ctx, w.config.From, webhookGroup(w.config.Name)); err != nil {
			return err
		}
	}
	if reload := ws.all != nil; w.durable && ws.alone && reload {
		has, err := hasGroup(ctx, ws.conn, w.config.From, webhookGroup(w.config.Name))
		if err != nil {
			return err
		}
		w.placed = !has
	}
	w.bus = hark.Over(sharedConn{ws.conn}, hark.WithHooks(deadLetterLog{ws.log}))
	if err := w.subscribe(); err != nil {
		return errors.Join(err, w.bus.Close(ctx))
	}
	return nil
}

// forgetPlace removes the group of a removed webhook, so that a later webhook with
// its name starts anew.
func (ws *webhooks) forgetPlace(ctx context.Context, w *webhook, c *Config) {
	if !ws.alone {
		return // other brokers may still send, with the old configuration
	}
	for i := range c.Webhooks {
		if c.Webhooks[i].Name == w.config.Name && c.Webhooks[i].From == w.config.From {
			return
		}
	}
	if err := ws.conn.DeleteGroup(ctx, w.config.From, webhookGroup(w.config.Name)); err != nil {
		ws.log.Warn("the position of a removed webhook could not be deleted", "webhook", w.config.Name, "err", err)
	}
}

// stopTimeout is how long requests in progress may take when the broker stops, or a
// reload ends their webhook.
const stopTimeout = 5 * time.Second

// stop ends all webhooks.
func (ws *webhooks) stop(ctx context.Context) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	wait, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	errs := make([]error, len(ws.all))
	var all sync.WaitGroup
	for i, w := range ws.all {
		all.Go(func() { errs[i] = w.stop(ctx, wait) })
	}
	all.Wait()
	ws.all = nil
	return errors.Join(errs...)
}

// named returns the webhook with a name, or nil if there is none.
func (ws *webhooks) named(name string) *webhook {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.all {
		if w.config.Name == name {
			return w
		}
	}
	return nil
}

// webhookView is a webhook as it is shown.
type webhookView struct {
	Name      string `json:"name"`
	From      string `json:"from" doc:"the topic or pattern"`
	Where     string `json:"where,omitempty"`
	Host      string `json:"host" doc:"the host of the receiver"`
	Durable   bool   `json:"durable" doc:"whether the messages are stored, so that messages published while the broker or the receiver is down are sent later"`
	State     string `json:"state" enum:"on off" doc:"on, or off after the receiver answered 410 Gone or somebody disabled the webhook"`
	Delivered uint64 `json:"delivered" doc:"messages that the receiver has accepted since the broker or the webhook was started"`
	Failed    uint64 `json:"failed" doc:"requests that got no answer or an error"`
	Dead      uint64 `json:"dead" doc:"messages that were given up and became dead letters"`
	Dropped   uint64 `json:"dropped" doc:"messages that were lost: given up without a dead letter, or dropped because too many arrived at once on a topic that is not stored"`
	Retrying  uint64 `json:"retrying" doc:"messages that wait for another attempt"`
	Waiting   uint64 `json:"waiting" doc:"messages that have not been sent yet"`
	LastError string `json:"last_error,omitempty" doc:"the error of the last request, if it failed"`
}

func (w *webhook) view() webhookView {
	s := w.sub.Stats()
	v := webhookView{
		Name: w.config.Name, From: w.config.From, Where: w.config.Where, Host: w.url.Host, Durable: w.durable, State: "on",
		Delivered: s.Delivered, Failed: s.Failed, Retrying: s.Retrying, Dead: s.Dead, Dropped: s.Dropped, Waiting: s.Waiting,
	}
	if w.gone.Load() {
		v.State = "off"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	v.LastError = w.last
	return v
}

// webhookEndpoints show webhooks, and turn them on and off.
func webhookEndpoints() []endpoint {
	switched := func(name, summary string, do func(*webhook)) endpoint {
		return endpoint{
			method: http.MethodPost, path: "/v1/webhooks/{name}/" + name, name: name + "Webhook", summary: summary, access: operator,
			params: []param{textParam("name", "the webhook").inPath()}, answer: jsonAnswer(webhookView{}), also: []int{http.StatusNotFound},
			handle: func(c *call) error {
				w := c.broker.webhooks.named(c.text("name"))
				if w == nil {
					return refused(http.StatusNotFound, "there is no webhook %q", c.text("name")).but("webhooks are configured in hark.yaml")
				}
				do(w)
				return c.reply(w.view())
			},
		}
	}
	return []endpoint{
		{
			method: http.MethodGet, path: "/v1/webhooks", name: "listWebhooks", summary: "list the webhooks and their state", access: operator,
			doc: "Webhooks are configured in `hark.yaml`, and change when it is reloaded.", answer: jsonAnswer([]webhookView{}),
			handle: func(c *call) error {
				ws := c.broker.webhooks
				ws.mu.Lock()
				all := slices.Clone(ws.all)
				ws.mu.Unlock()
				views := make([]webhookView, len(all))
				for i, w := range all {
					views[i] = w.view()
				}
				return c.reply(views)
			},
		},
		switched("enable", "enable a webhook, and send the messages that wait", func(w *webhook) { w.enable() }),
		switched("disable", "disable a webhook until it is enabled or the broker is restarted", func(w *webhook) { w.disable("it was disabled over the API") }),
	}
}
