package broker

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// deadEndpoints are about dead letters: messages that subscriptions gave up.
func deadEndpoints() []endpoint {
	absent := []int{http.StatusNotFound, http.StatusGatewayTimeout}
	topic := topicParam("topic", "the topic for dead letters").inPath()
	seq := numberParam("seq", 1, 1<<63, "the sequence of the dead letter").inPath()
	const path, scans = "/v1/admin/dead/{topic}", " One call examines at most 10,000 dead letters; the answer says where to continue."
	return []endpoint{
		{
			method: http.MethodGet, path: "/v1/admin/dead", name: "listDead", summary: "list the topics for dead letters", access: anyUser,
			doc:    "These are the topics whose names end in .dead, those that a subscription has named, and those that the configuration declares with dead_letters; in a store, only topics that have messages. Other stored topics can be requested by name.",
			params: pageParams(), answer: jsonAnswer(page[deadTopicView]{}), also: []int{http.StatusGatewayTimeout}, handle: listDead,
		},
		{
			method: http.MethodGet, path: path + "/errors", name: "listDeadErrors", summary: "list the dead letters of a topic, grouped by error", access: administrator("topic"),
			doc:    "Errors that differ only in numbers or quoted text are one group. The largest group comes first." + scans,
			params: []param{topic, textParam("after", "continue after this dead letter: the `next` of the previous call")}, answer: jsonAnswer(page[deadErrorView]{}), also: absent, handle: listDeadErrors,
		},
		{
			method: http.MethodGet, path: path + "/messages", name: "listDeadMessages", summary: "list the dead letters of a topic, the oldest first", access: administrator("topic"),
			doc: "The answer does not contain their data." + scans,
			params: append(pageParams(), topic, textParam("error", "only those of this group of errors, as listDeadErrors names it in error"),
				filterParam("where", "only those whose original message matches this filter; headers.reason, headers.subscription and headers.attempts are those of the failure")),
			answer: jsonAnswer(page[deadView]{}), also: absent, handle: listDeadMessages,
		},
		{
			method: http.MethodGet, path: path + "/messages/{seq}", name: "getDeadMessage", summary: "show a whole dead letter", access: administrator("topic"),
			params: []param{topic, seq}, answer: jsonAnswer(deadWholeView{}), also: absent,
			handle: func(c *call) error {
				m, err := c.broker.conn.ReadMessage(c.ctx, c.text("topic"), c.number("seq"))
				if err != nil {
					return err
				}
				return c.reply(readDead(m).whole())
			},
		},
		{
			method: http.MethodDelete, path: path + "/messages/{seq}", name: "deleteDeadMessage", summary: "remove a dead letter", access: administrator("topic"),
			params: []param{topic, seq}, status: http.StatusNoContent, also: absent, handle: deleteMessage,
		},
		{
			method: http.MethodPost, path: path + "/messages/{seq}/edit", name: "editDeadMessage", summary: "store an edited copy of a dead letter", access: administrator("topic"),
			doc:    "The copy is a dead letter of the same topic, with the record of the failure and the sequence of the original. Replay the copy afterwards.",
			params: []param{topic, seq}, body: &body{shape: editedDead{}, limit: maxMessage}, answer: jsonAnswer(deadWholeView{}), also: append(absent, http.StatusInsufficientStorage),
			handle: func(c *call) error {
				var e editedDead
				if err := c.decode(&e); err != nil {
					return err
				}
				d, err := c.broker.editDead(c.ctx, c.text("topic"), c.number("seq"), &e)
				if err != nil {
					return err
				}
				return c.reply(d.whole())
			},
		},
		{
			method: http.MethodPost, path: path + "/replay", name: "replayDead", summary: "replay dead letters: publish them again and remove them", access: administrator("topic"),
			doc: "The user must be allowed to publish to the target, or administer it. Every group of the target gets the message, not only the one that gave it up. " +
				"The answer has a line of JSON for each dead letter, and a last line with a summary. The replay ends when all are done or the client disconnects. " +
				"In the second case nothing is lost, and nothing is duplicated as long as the target remembers IDs.",
			params: []param{topic}, body: jsonBody(replayRequest{}), answer: &answer{media: linesType, shape: deadOutcome{}}, also: absent, stream: true, handle: replayDead,
		},
		{
			method: http.MethodPost, path: path + "/delete", name: "deleteDead", summary: "remove dead letters", access: administrator("topic"),
			doc:    "The answer has a line of JSON for each dead letter, and a last line with a summary.",
			params: []param{topic}, body: jsonBody(deadDelete{}), answer: &answer{media: linesType, shape: deadOutcome{}}, also: absent, stream: true, handle: deleteDead,
		},
	}
}

// linesType is the media type of JSON in lines.
const linesType = "application/x-ndjson"

// deadTopicView is a topic for dead letters.
type deadTopicView struct {
	Topic    string     `json:"topic" doc:"the name"`
	Messages uint64     `json:"messages" doc:"the number of dead letters"`
	Oldest   *time.Time `json:"oldest,omitempty" doc:"when the oldest dead letter was stored"`
	Newest   *time.Time `json:"newest,omitempty" doc:"when the newest dead letter was stored"`
}

// deadErrorView is the dead letters of a topic that have the same error.
type deadErrorView struct {
	Error         string    `json:"error" doc:"the name of this group of errors, for replayDead, deleteDead and listDeadMessages"`
	Reason        string    `json:"reason" doc:"the error, without the parts that vary"`
	Count         uint64    `json:"count" doc:"the number of dead letters in this group"`
	Again         uint64    `json:"again" doc:"how many of them were replayed and failed again"`
	First         time.Time `json:"first" doc:"when the first of them failed for good"`
	Last          time.Time `json:"last" doc:"when the last of them failed for good"`
	Example       uint64    `json:"example" doc:"the sequence of the newest of them"`
	Subscriptions []string  `json:"subscriptions" doc:"the subscriptions that gave them up"`
}

// deadView is a dead letter.
type deadView struct {
	Seq          uint64     `json:"seq" doc:"the sequence"`
	ID           string     `json:"id,omitempty" doc:"the ID of the message"`
	Key          string     `json:"key,omitempty" doc:"the key of the message"`
	From         string     `json:"from,omitempty" doc:"the topic to which the message was published"`
	FromSeq      uint64     `json:"from_seq,omitempty" doc:"the sequence of the message in that topic"`
	Subscription string     `json:"subscription,omitempty" doc:"the subscription that gave the message up"`
	Error        string     `json:"error" doc:"the group of errors to which it belongs"`
	Reason       string     `json:"reason,omitempty" doc:"the last error; missing if it was not recorded"`
	Attempts     int        `json:"attempts,omitempty" doc:"the number of attempts"`
	First        *time.Time `json:"first,omitempty" doc:"when the first attempt failed"`
	Last         *time.Time `json:"last,omitempty" doc:"when the last attempt failed"`
	Replays      int        `json:"replays" doc:"how often the message was replayed before it failed again"`
	EditedFrom   uint64     `json:"edited_from,omitempty" doc:"the sequence of the dead letter of which this is an edited copy"`
	Bytes        int        `json:"bytes" doc:"the size of the data in bytes"`
}

// deadWholeView is a dead letter with everything that it has.
type deadWholeView struct {
	deadView
	Stack   string `json:"stack,omitempty" doc:"the stack of the panic, if the last attempt panicked"`
	Message *Event `json:"message" doc:"the message"`
}

func (d *deadLetter) view() *deadView {
	v := &deadView{Seq: d.Seq, ID: d.ID, Key: d.Key, Replays: d.replays(), Bytes: len(d.Data)}
	_, v.Error = d.reason()
	v.EditedFrom, _ = strconv.ParseUint(d.Headers[editedHeader], 10, 64) // 0 for what is no number
	if f := d.failure; f != nil {
		v.From, v.FromSeq, v.Subscription, v.Reason, v.Attempts = f.Topic, f.Seq, cut(f.Subscription, maxSubscription), cut(f.Reason, maxReason), f.Attempts
		v.First, v.Last = &f.First, &f.Last
	}
	return v
}

func (d *deadLetter) whole() *deadWholeView {
	v := &deadWholeView{deadView: *d.view()}
	if f := d.failure; f != nil {
		v.Subscription, v.Reason, v.Stack = f.Subscription, f.Reason, f.Stack
	}
	m := *d.Received
	m.Headers = map[string]string{}
	for name, value := range d.Headers {
		if name != failureHeader {
			m.Headers[name] = value
		}
	}
	v.Message = &Event{&m}
	return v
}

func listDead(c *call) error {
	return replyTopics(c, natsdriver.TopicQuery{Dead: true, Match: c.matches("")}, func(info *natsdriver.TopicInfo) *deadTopicView {
		v := &deadTopicView{Topic: info.Name, Messages: info.Messages}
		if info.Messages > 0 {
			v.Oldest, v.Newest = &info.FirstTime, &info.LastTime
		}
		return v
	})
}

func listDeadErrors(c *call) error {
	from, err := c.afterSeq()
	if err != nil {
		return err
	}
	p := page[*deadErrorView]{Items: []*deadErrorView{}}
	byName := map[string]*deadErrorView{}
	read := 0
	p.Next, err = c.broker.scan(c.ctx, c.text("topic"), from, func(m *driver.Received) bool {
		d := readDead(m)
		text, name := d.reason()
		g := byName[name]
		if g == nil {
			g = &deadErrorView{Error: name, Reason: text, First: m.Time, Subscriptions: []string{}}
			byName[name] = g
			p.Items = append(p.Items, g)
		}
		g.add(d)
		read++
		return read < maxScanned
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(p.Items, func(a, b *deadErrorView) int { return cmp.Compare(b.Count, a.Count) })
	return c.reply(p)
}

func (g *deadErrorView) add(d *deadLetter) {
	at := d.Time
	if d.failure != nil {
		at = d.failure.Last
		if s := cut(d.failure.Subscription, maxSubscription); len(g.Subscriptions) < maxNamed && !slices.Contains(g.Subscriptions, s) {
			g.Subscriptions = append(g.Subscriptions, s)
		}
	}
	if g.Count == 0 || at.Before(g.First) {
		g.First = at
	}
	if at.After(g.Last) {
		g.Last = at
	}
	if d.replays() > 0 {
		g.Again++
	}
	g.Count++
	g.Example = d.Seq
}

func listDeadMessages(c *call) error {
	from, err := c.afterSeq()
	if err != nil {
		return err
	}
	p := page[*deadView]{Items: []*deadView{}}
	s, where := deadSelection{Error: c.text("error")}, c.filter("where")
	read, size := 0, 0
	p.Next, err = c.broker.scan(c.ctx, c.text("topic"), from, func(m *driver.Received) bool {
		read++
		if d := readDead(m); s.matches(d, where) {
			p.Items = append(p.Items, d.view())
			size += sizeOfHeaders(m)
		}
		return uint64(len(p.Items)) < c.number("limit") && read < maxScanned && size < maxPageData
	})
	if err != nil {
		return err
	}
	return c.reply(p)
}

// deadDelete says which dead letters are removed.
type deadDelete struct {
	deadSelection
	DryRun bool `json:"dry_run,omitempty" doc:"dry run: only report what would be done"`
}

func replayDead(c *call) error {
	var request replayRequest
	if err := c.decode(&request); err != nil {
		return err
	}
	if request.Rate < 0 {
		return refused(http.StatusBadRequest, "rate: must not be negative")
	}
	if request.To != "" {
		if err := checkTopic(request.To); err != nil {
			return refused(http.StatusBadRequest, "to: %s", err)
		}
	}
	r := &replayer{
		broker: c.broker, topic: c.text("topic"), request: &request, targets: map[string]*target{},
		allowed: func(topic string) bool { return c.who.mayPublish(topic) || c.who.mayAdminister(topic) },
	}
	return c.eachDead(&request.deadSelection, request.Rate, r.replay)
}

func deleteDead(c *call) error {
	var request deadDelete
	if err := c.decode(&request); err != nil {
		return err
	}
	return c.eachDead(&request.deadSelection, 0, func(ctx context.Context, seq uint64) *deadOutcome {
		o := &deadOutcome{Seq: seq, Outcome: "dry"}
		if _, err := c.broker.conn.ReadMessage(ctx, c.text("topic"), seq); errors.Is(err, natsdriver.ErrNotFound) {
			return o.gone()
		}
		if !request.DryRun {
			o.Outcome = "done"
			if err := c.broker.conn.DeleteMessage(ctx, c.text("topic"), seq); err != nil {
				return o.fail(err)
			}
		}
		return o
	})
}

// eachDead does something with each dead letter of a selection, so many in a second
// at most, and says what became of it in a line.
func (c *call) eachDead(s *deadSelection, rate float64, do func(ctx context.Context, seq uint64) *deadOutcome) error {
	where, err := s.check()
	if err != nil {
		return err
	}
	if _, err := c.broker.conn.TopicInfo(c.ctx, c.text("topic")); err != nil {
		return err
	}
	seqs, err := c.broker.selectDead(c.ctx, c.text("topic"), s, where)
	if err != nil {
		return err
	}
	c.rw.Header().Set("Content-Type", linesType)
	c.rw.Header().Set("Cache-Control", "no-store")
	c.rw.WriteHeader(http.StatusOK)
	w := newDeadlineWriter(c)
	defer w.close()
	line := func(o *deadOutcome) error {
		text, err := appendJSONLine(nil, o)
		if err != nil {
			return err
		}
		w.write(text)
		w.flush()
		return w.err
	}
	total := uint64(len(seqs))
	if err := line(&deadOutcome{Total: &total}); err != nil {
		return err
	}
	var summary deadSummary
	began := time.Now()
	for i, seq := range seqs {
		if rate > 0 {
			if err := wait(c.ctx, time.Until(began.Add(dueAfter(i, rate)))); err != nil {
				return err
			}
		}
		o := do(c.ctx, seq)
		if err := c.ctx.Err(); err != nil {
			return context.Cause(c.ctx)
		}
		summary.count(o)
		if err := line(o); err != nil {
			return err
		}
	}
	return line(&deadOutcome{Summary: &summary})
}

// dueAfter returns after how long the message with number i is due, with so many in a
// second.
func dueAfter(i int, rate float64) time.Duration {
	return time.Duration(min(float64(i)/rate*float64(time.Second), float64(pausedForEver)))
}

// wait waits until a time has passed, or ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
