package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
)

// outcomes reads the response lines of an endpoint for many dead letters.
func (a *api) outcomes(name string, given args, body any) (all []deadOutcome, s deadSummary) {
	a.t.Helper()
	text := a.want(http.StatusOK, name, given, body, nil)
	var total *uint64
	for line := range bytes.Lines(text) {
		var o deadOutcome
		if err := json.Unmarshal(line, &o); err != nil {
			a.t.Fatal(err)
		}
		switch {
		case o.Total != nil:
			total = o.Total
		case o.Summary != nil:
			s = *o.Summary
		default:
			all = append(all, o)
		}
	}
	if total == nil || int(*total) != len(all) {
		a.t.Errorf("%s: got %d outcomes, want as many as the first line says: %s", name, len(all), text)
	}
	return all, s
}

// job is the message that fails.
type job struct {
	N    int
	Fail string
}

// failing subscribes with a bus, as programs do, and gives up on the messages that
// say so.
func failing(t *testing.T, b *Broker) (*hark.Topic[job], *hark.Bus) {
	t.Helper()
	bus, err := hark.Open(testContext(t), "hark://"+b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := bus.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	jobs, err := hark.NewTopic[job](bus, "work.jobs", hark.Stored(hark.Retention{Durability: hark.Relaxed}), hark.DedupWindow(2*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	_, err = jobs.Subscribe(func(_ context.Context, m *hark.Message[job]) error {
		switch m.Value.Fail {
		case "":
			return nil
		case "panic":
			panic("out of cheese")
		}
		return fmt.Errorf("job %d: %s", m.Value.N, m.Value.Fail)
	}, hark.Group("workers"), hark.MaxAttempts(2), hark.Backoff(hark.BackoffPolicy{Min: time.Millisecond, Max: time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	return jobs, bus
}

// awaitDead waits until a topic has n dead letters.
func awaitDead(t *testing.T, b *Broker, topic string, n uint64) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ctx := testContext(t); ; {
		info, err := b.conn.TopicInfo(ctx, topic)
		if err == nil && info.Messages == n {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("got %d dead letters (%v), want %d", info.Messages, err, n)
		}
	}
}

func deadScenario(t *testing.T, a *api) {
	jobs, bus := failing(t, a.broker)
	for i, fail := range []string{"", "disk full", "panic", "disk full", "no such user 42"} {
		if err := jobs.Publish(testContext(t), job{i, fail}, hark.ID(fmt.Sprint("job-", i)), hark.Header("tenant", "acme")); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			awaitDead(t, a.broker, "work.jobs.dead", uint64(i)) // so that they come in order
		}
	}
	dead := func(more ...string) args {
		given := args{"topic": "work.jobs.dead"}
		for i := 0; i < len(more); i += 2 {
			given[more[i]] = more[i+1]
		}
		return given
	}
	if got := pages(a, "listDead", args{"limit": "1"}, func(v deadTopicView) string { return fmt.Sprint(v.Topic, v.Messages) }); !slices.Equal(got, []string{"work.jobs.dead4"}) {
		t.Errorf("got %v", got)
	}
	var groups page[deadErrorView]
	a.want(http.StatusOK, "listDeadErrors", dead(), nil, &groups)
	if len(groups.Items) != 3 || groups.Items[0].Count != 2 || groups.Items[0].Reason != "job #: disk full" || groups.Items[0].Again != 0 || !slices.Equal(groups.Items[0].Subscriptions, []string{"workers"}) {
		t.Errorf("got %+v", groups.Items)
	}
	full := groups.Items[0].Error
	seqs := func(given args) string {
		return strings.Join(pages(a, "listDeadMessages", given, func(v deadView) string { return v.ID }), " ")
	}
	for _, tt := range []struct {
		given args
		want  string
	}{
		{dead("limit", "1"), "job-1 job-2 job-3 job-4"},
		{dead("error", full), "job-1 job-3"},
		{dead("where", `headers.reason.contains("cheese")`), "job-2"},
		{dead("where", `headers.tenant == "acme" && data.N > 2`), "job-3 job-4"},
		{dead("where", `topic == "work.jobs" && headers.attempts == "2" && headers.subscription.endsWith("workers")`), "job-1 job-2 job-3 job-4"},
		{dead("error", "none"), ""},
	} {
		if got := seqs(tt.given); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.given, got, tt.want)
		}
	}
	var whole struct {
		deadView
		Stack   string
		Message struct {
			Headers map[string]string
			Data    job
		}
	}
	a.want(http.StatusOK, "getDeadMessage", dead("seq", "2"), nil, &whole)
	if !strings.Contains(whole.Stack, "broker.failing") || whole.Attempts != 2 || whole.From != "work.jobs" || whole.FromSeq != 3 || whole.First == nil || whole.Reason == "" ||
		whole.Message.Data.N != 2 || whole.Message.Headers["tenant"] != "acme" || whole.Message.Headers[failureHeader] != "" {
		t.Errorf("got %+v", whole)
	}
	a.refused(http.StatusNotFound, "", "getDeadMessage", dead("seq", "99"), nil)

	replayScenario(t, a, full)
	editScenario(t, a)

	if err := bus.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	a.refused(http.StatusBadRequest, "does not select dead letters", "deleteDead", dead(), deadDelete{})
	if _, s := a.outcomes("deleteDead", dead(), deadDelete{deadSelection: deadSelection{All: true, Limit: 1}, DryRun: true}); s != (deadSummary{Dry: 1}) {
		t.Errorf("got %+v", s)
	}
	a.want(http.StatusNoContent, "deleteDeadMessage", dead("seq", "4"), nil, nil)
	a.refused(http.StatusNotFound, "", "deleteDeadMessage", dead("seq", "4"), nil)
	if _, s := a.outcomes("deleteDead", dead(), deadDelete{deadSelection: deadSelection{All: true}}); s.Done == 0 || s.Failed != 0 {
		t.Errorf("got %+v", s)
	}
	awaitDead(t, a.broker, "work.jobs.dead", 0)
	missing := deadSelection{Seqs: []uint64{9999, 4, 9999}}
	for name, request := range map[string]any{"deleteDead": deadDelete{deadSelection: missing}, "replayDead": replayRequest{deadSelection: missing}} {
		if all, s := a.outcomes(name, dead(), request); s != (deadSummary{Gone: 2}) || all[0].Seq != 4 || all[0].Outcome != "gone" {
			t.Errorf("%s: got %+v, %+v, want what is said of two that are not there", name, s, all)
		}
	}
	a.refused(http.StatusNotFound, "topic none", "replayDead", args{"topic": "none"}, replayRequest{deadSelection: deadSelection{All: true}})
}

// replayScenario replays the dead letters of one error, which fail again.
func replayScenario(t *testing.T, a *api, group string) {
	dead := args{"topic": "work.jobs.dead"}
	for _, tt := range []struct {
		request any
		says    string
	}{
		{replayRequest{}, "does not select dead letters"},
		{replayRequest{deadSelection: deadSelection{Where: "data."}}, "where: "},
		{replayRequest{deadSelection: deadSelection{All: true}, Rate: -1}, "rate: must not be negative"},
		{replayRequest{deadSelection: deadSelection{All: true}, To: "a.*"}, "to: "},
		{map[string]any{"all": true, "dryrun": true}, "dryrun"},
	} {
		a.refused(http.StatusBadRequest, tt.says, "replayDead", dead, tt.request)
	}
	which := deadSelection{Error: group}
	if all, s := a.outcomes("replayDead", dead, replayRequest{deadSelection: which, DryRun: true}); s != (deadSummary{Dry: 2}) || all[0].To != "work.jobs" || all[0].ID != "job-1" {
		t.Errorf("got %+v %+v", all, s)
	}
	awaitDead(t, a.broker, "work.jobs.dead", 4)
	if all, s := a.outcomes("replayDead", dead, replayRequest{deadSelection: which, Rate: 100}); s != (deadSummary{Done: 2}) {
		t.Errorf("got %+v %+v", all, s)
	}
	awaitDead(t, a.broker, "work.jobs.dead", 4) // they have failed again
	var groups page[deadErrorView]
	a.want(http.StatusOK, "listDeadErrors", dead, nil, &groups)
	if i := slices.IndexFunc(groups.Items, func(g deadErrorView) bool { return g.Error == group }); i < 0 || groups.Items[i].Count != 2 || groups.Items[i].Again != 2 {
		t.Errorf("got %+v, want both to be known as replayed", groups.Items)
	}
	if all, s := a.outcomes("replayDead", dead, replayRequest{deadSelection: which}); s != (deadSummary{Skipped: 2}) || !strings.Contains(all[0].Reason, "replayed once and has failed again") {
		t.Errorf("got %+v %+v", all, s)
	}
	if _, s := a.outcomes("replayDead", dead, replayRequest{deadSelection: deadSelection{Error: group, Limit: 1}, Force: true}); s != (deadSummary{Done: 1}) {
		t.Errorf("got %+v", s)
	}
	awaitDead(t, a.broker, "work.jobs.dead", 4)
	replays := pages(a, "listDeadMessages", args{"topic": "work.jobs.dead", "error": group}, func(v deadView) string { return fmt.Sprint(v.Replays) })
	if !slices.Equal(replays, []string{"1", "2"}) {
		t.Errorf("got %v", replays)
	}
	// Replay to a topic that is not permitted.
	one := deadSelection{Where: `id == "job-2"`}
	if all, s := a.outcomes("replayDead", dead, replayRequest{deadSelection: one, To: "not.stored"}); s != (deadSummary{Skipped: 1}) || !strings.Contains(all[0].Reason, "not.stored is not stored") {
		t.Errorf("got %+v %+v", all, s)
	}
	if all, s := a.outcomes("replayDead", dead, replayRequest{deadSelection: one, To: "work.jobs.dead", Force: true}); s != (deadSummary{Failed: 1}) {
		t.Errorf("got %+v %+v", all, s)
	}
	heard := listen(t, dial(t, a.broker, ""), "not.stored")
	if _, s := a.outcomes("replayDead", dead, replayRequest{deadSelection: one, To: "not.stored", Force: true}); s != (deadSummary{Done: 1}) {
		t.Errorf("got %+v", s)
	}
	if m := receive(t, heard, 1)[0]; m.ID != "job-2" || m.Headers["tenant"] != "acme" || m.Headers[failureHeader] != "" || m.Headers[replayOfHeader] != "work.jobs.dead/2" || m.Headers["ce-type"] != "" {
		t.Errorf("got %+v", m)
	}
}

// editScenario edits the dead letter of job 4 so that it no longer fails.
func editScenario(t *testing.T, a *api) {
	dead := args{"topic": "work.jobs.dead", "seq": "4"}
	none, acme := (*string)(nil), "acme 2"
	for _, tt := range []struct {
		edit any
		says string
	}{
		{editedDead{Data: json.RawMessage("1"), Base64: []byte{1}}, "give one of them"},
		{editedDead{Headers: map[string]*string{failureHeader: none}}, "cannot be changed"},
		{map[string]any{"body": 1}, "body"},
	} {
		a.refused(http.StatusBadRequest, tt.says, "editDeadMessage", dead, tt.edit)
	}
	var v struct {
		deadView
		Message struct {
			Headers map[string]string
			Data    job
		}
	}
	edit := editedDead{Data: json.RawMessage(`{"N":4}`), Headers: map[string]*string{"tenant": &acme, "none": none}}
	a.want(http.StatusOK, "editDeadMessage", dead, edit, &v)
	if v.EditedFrom != 4 || v.Seq <= 4 || v.ID != "job-4" || !strings.Contains(v.Reason, "no such user") || v.Message.Data != (job{N: 4}) || v.Message.Headers["tenant"] != acme {
		t.Errorf("got %+v", v)
	}
	awaitDead(t, a.broker, "work.jobs.dead", 4) // three that failed, and the copy
	first := v.Seq
	a.want(http.StatusOK, "editDeadMessage", args{"topic": "work.jobs.dead", "seq": uintText(first)}, editedDead{Replace: true}, &v)
	if v.EditedFrom != first || v.Message.Data != (job{N: 4}) {
		t.Errorf("got %+v", v)
	}
	a.refused(http.StatusNotFound, "", "getDeadMessage", args{"topic": "work.jobs.dead", "seq": uintText(first)}, nil)
	if _, s := a.outcomes("replayDead", args{"topic": "work.jobs.dead"}, replayRequest{deadSelection: deadSelection{Seqs: []uint64{v.Seq}}}); s != (deadSummary{Done: 1}) {
		t.Errorf("got %+v", s)
	}
	awaitDead(t, a.broker, "work.jobs.dead", 3)
	a.refused(http.StatusNotFound, "", "editDeadMessage", args{"topic": "work.jobs.dead", "seq": "999"}, editedDead{})
}

// TestReplayNeedsPermission replays as a user who may not publish to the original
// topic.
func TestReplayNeedsPermission(t *testing.T) {
	text := strings.Replace(users(t), "subscribe: [orders.>, ask]", "subscribe: [orders.>, ask], admin: [letters.dead]", 1)
	b := start(t, config(t, strings.Replace(text, "{name: secret}", "{name: secret}, {name: letters.dead}", 1)))
	for i, from := range []string{"secret", "orders.stored", "region.eu"} {
		bury(t, b, "letters.dead", from, i)
	}
	bob := newAPI(t, b, "Bearer secret-bob")
	all, s := bob.outcomes("replayDead", args{"topic": "letters.dead"}, replayRequest{deadSelection: deadSelection{All: true}, Force: true})
	if s != (deadSummary{Done: 1, Failed: 2}) || all[2].Outcome != "done" || !strings.Contains(all[0].Reason, "may not publish to secret") {
		t.Errorf("got %+v %+v", all, s)
	}
	bob.refused(http.StatusForbidden, "", "replayDead", args{"topic": "orders.dead"}, replayRequest{})
}

// bury puts a dead letter on a topic, as hark does.
func bury(t *testing.T, b *Broker, dead, from string, n int) {
	t.Helper()
	record, err := json.Marshal(hark.Failure{Topic: from, Reason: "no", Subscription: "s", Attempts: 1, First: time.Now(), Last: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	topic, err := b.conn.OpenTopic(testContext(t), driver.TopicConfig{Name: dead, Stored: &driver.StoredConfig{Existing: true}})
	if err == nil {
		m := &driver.Message{ID: fmt.Sprint("id-", n), Data: fmt.Append(nil, n), ContentType: "application/json", Headers: map[string]string{failureHeader: string(record)}}
		err = topic.Publish(testContext(t), []*driver.Message{m})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestDeafToRemoval asks to remove a dead letter, and does not read the answer.
func TestDeafToRemoval(t *testing.T) {
	b := start(t, config(t, "topics: [{name: orders.dead}]"))
	b.gateway.timeout = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/v1/admin/dead/orders.dead/delete", strings.NewReader(`{"seqs":[1]}`))
	w := &deafWriter{ctx: ctx, header: http.Header{}, stuck: make(chan struct{})}
	cut := make(chan any, 1)
	go func() {
		defer func() { cut <- recover() }()
		b.web.handler().ServeHTTP(w, r)
	}()
	select {
	case p := <-cut:
		if p != http.ErrAbortHandler { //nolint:errorlint // it is that very value
			t.Errorf("the answer ended with %v, and was not cut short", p)
		}
	case <-w.stuck:
		t.Error("a client that takes nothing is waited for without limit")
		cancel()
		<-cut
	}
}

// deafWriter is an http.ResponseWriter of a client that takes nothing.
type deafWriter struct {
	ctx    context.Context
	header http.Header
	stuck  chan struct{} // closed by a write without a deadline

	mu    sync.Mutex // guards until
	until time.Time
}

// Header implements http.ResponseWriter.
func (w *deafWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *deafWriter) WriteHeader(int) {}

// Flush is for http.ResponseController.
func (w *deafWriter) Flush() {}

// SetWriteDeadline is for http.ResponseController.
func (w *deafWriter) SetWriteDeadline(at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = at
	return nil
}

// Write implements http.ResponseWriter.
func (w *deafWriter) Write([]byte) (int, error) {
	w.mu.Lock()
	until := w.until
	w.mu.Unlock()
	if until.IsZero() {
		close(w.stuck)
		<-w.ctx.Done()
		return 0, context.Cause(w.ctx)
	}
	return 0, errors.Join(wait(w.ctx, time.Until(until)), os.ErrDeadlineExceeded)
}

// TestReplayStops ends a replay together with its client, and with the broker.
func TestReplayStops(t *testing.T) {
	b := start(t, config(t, "topics: [{name: jobs}, {name: jobs.dead}]"))
	for i := range 3 {
		bury(t, b, "jobs.dead", "jobs", i)
	}
	a := newAPI(t, b, "")
	slow, err := json.Marshal(replayRequest{deadSelection: deadSelection{All: true}, Rate: 0.001})
	if err != nil {
		t.Fatal(err)
	}
	begin := func(left uint64) *http.Response {
		t.Helper()
		res, err := a.client.Do(a.request(a.endpoint("replayDead"), args{"topic": "jobs.dead"}, bytes.NewReader(slow)))
		if err != nil {
			t.Fatal(err)
		}
		awaitDead(t, b, "jobs.dead", left)
		return res
	}
	res := begin(2)
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	res = begin(1)
	defer res.Body.Close()
	began := time.Now()
	stop(t, b)
	if took := time.Since(began); took > b.config.Load().StopTimeout/2 {
		t.Errorf("stopping took %v", took)
	}
	if _, err := new(bytes.Buffer).ReadFrom(res.Body); err == nil {
		t.Error("the answer looks whole")
	}
}

func TestReasons(t *testing.T) {
	name := func(reason string) string {
		_, n := (&deadLetter{failure: &hark.Failure{Reason: reason}}).reason()
		return n
	}
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"order 17: no stock", "order 1844: no stock", true},
		{"dial tcp 10.0.0.1:80: refused", "dial tcp 10.0.0.22:8080: refused", true},
		{`user "ada" is unknown`, `user "bob" is unknown`, true},
		{"id 6ba7b810-9dad-11d1-80b4-00c04fd430c8", "id 00000000-9dad-11d1-80b4-00c04fd430ff", true},
		{"at 0xc000123", "at 0xc000abc", true},
		{"no stock", "no money", false},
		{"timeout", "timeout: connect", false},
	} {
		if (name(tt.a) == name(tt.b)) != tt.same {
			t.Errorf("%q and %q: want same=%v", tt.a, tt.b, tt.same)
		}
	}
	if text, _ := (&deadLetter{}).reason(); text == "" {
		t.Error("want a word for what has no record")
	}
}

// TestForgedDeadLetters lists dead letters with records as large as they can be, which
// anybody can make who may publish to their topic.
func TestForgedDeadLetters(t *testing.T) {
	b := start(t, config(t, "topics: [{name: orders.dead, durability: memory}]"))
	a := newAPI(t, b, "")
	topic := openStored(t, b, "orders.dead")
	const letters = 300
	var ms []*driver.Message
	for i := range letters {
		record, err := json.Marshal(hark.Failure{Topic: "orders", Reason: letters1000(i) + strings.Repeat("x", 20_000), Subscription: letters1000(i) + strings.Repeat("y", 20_000)})
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, &driver.Message{Data: []byte("{}"), Headers: map[string]string{failureHeader: string(record)}})
	}
	if err := topic.Publish(testContext(t), ms); err != nil {
		t.Fatal(err)
	}
	var groups page[deadErrorView]
	text := a.want(http.StatusOK, "listDeadErrors", args{"topic": "orders.dead"}, nil, &groups)
	if len(groups.Items) != letters || len(text) > letters*(maxReason+maxSubscription+1000) {
		t.Errorf("the list has %d groups of errors in %d bytes", len(groups.Items), len(text))
	}
	var list page[deadView]
	text = a.want(http.StatusOK, "listDeadMessages", args{"topic": "orders.dead", "limit": "1000"}, nil, &list)
	if len(list.Items) != letters || len(text) > letters*(maxReason+maxSubscription+1000) {
		t.Errorf("the list has %d dead letters in %d bytes", len(list.Items), len(text))
	}
	var whole deadWholeView
	if a.want(http.StatusOK, "getDeadMessage", args{"topic": "orders.dead", "seq": "1"}, nil, &whole); len(whole.Reason) < 20_000 || len(whole.Subscription) < 20_000 {
		t.Errorf("a whole dead letter has a reason of %d bytes and a subscription of %d", len(whole.Reason), len(whole.Subscription))
	}
	if all, s := a.outcomes("deleteDead", args{"topic": "orders.dead"}, deadDelete{deadSelection: deadSelection{Seqs: []uint64{7, 3, 7, 5}, Where: "headers.attempts == \"0\""}}); s.Done != 3 || all[0].Seq != 3 || all[2].Seq != 7 {
		t.Errorf("removing 7, 3, 7 and 5 did %+v, %+v", s, all)
	}
}

// letters1000 writes a number below 1000 in letters: errors that differ only in digits are one
// group.
func letters1000(n int) string {
	return string([]byte{'a' + byte(n/100), 'a' + byte(n/10%10), 'a' + byte(n%10)})
}

// FuzzDeadLetter reads dead letters with any records, as anybody can make them who may
// publish to their topic.
func FuzzDeadLetter(f *testing.F) {
	f.Add(`{"topic":"orders","seq":1,"reason":"order 17: \"no\"","attempts":1,"first":"2024-01-01T00:00:00+23:59","before":["a"]}`, "1", "2", []byte("{}"))
	f.Add(`{"topic":">","reason":null,"first":"0000-01-01T00:00:00+23:59","attempts":-1}`, "-99999999999999999999", "-1", []byte("\xff"))
	f.Fuzz(func(t *testing.T, record, replayed, edited string, data []byte) {
		m := &driver.Received{Topic: "orders.dead", Seq: 1}
		m.Data = data
		m.Headers = map[string]string{failureHeader: record, replayedHeader: replayed, editedHeader: edited}
		d := readDead(m)
		text, name := d.reason()
		g := &deadErrorView{Error: name, Reason: text}
		g.add(d)
		for _, view := range []any{d.view(), d.whole(), g} {
			if _, err := json.Marshal(view); err != nil {
				t.Errorf("%q cannot be shown: %v", record, err)
			}
		}
		if d.replays() < 0 || d.from() != "" && d.failure == nil {
			t.Errorf("%q: replayed %d times, from %q", record, d.replays(), d.from())
		}
		e := &deadEvent{Event{m}, d}
		e.Topic()
		e.Header("reason")
		if out := replayOf("orders.dead", d); out.Headers[replayedHeader] == "0" || out.Headers[failureHeader] != "" {
			t.Errorf("%q is replayed with headers %q", record, out.Headers)
		}
	})
}

// TestLongReasons groups errors that differ in what varies, however long they are.
func TestLongReasons(t *testing.T) {
	group := func(reason string) string {
		record, err := json.Marshal(hark.Failure{Topic: "t", Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		_, name := readDead(&driver.Received{Message: driver.Message{Headers: map[string]string{failureHeader: string(record)}}}).reason()
		return name
	}
	for what, reason := range map[string]func(n int) string{
		"quoted data": func(n int) string {
			return fmt.Sprintf("cannot parse %q", strings.Repeat(fmt.Sprint("order ", n, "; "), 100))
		},
		"a number before long text": func(n int) string { return fmt.Sprintf("message %d: %s", n, strings.Repeat("word ", 300)) },
	} {
		if a, b := group(reason(9)), group(reason(10000)); a != b {
			t.Errorf("%s: two groups, %s and %s", what, a, b)
		}
	}
}

// TestDueAfter spaces replays, also at rates at which the next is due after centuries.
func TestDueAfter(t *testing.T) {
	for _, tt := range []struct {
		i    int
		rate float64
		want time.Duration
	}{
		{0, 1e-300, 0},
		{1, 50, 20 * time.Millisecond},
		{100, 0.5, 200 * time.Second},
		{1, 1e-10, pausedForEver},
		{999_999, 1e-300, pausedForEver},
	} {
		if got := dueAfter(tt.i, tt.rate); got != tt.want {
			t.Errorf("%d at %v a second: got %v, want %v", tt.i, tt.rate, got, tt.want)
		}
	}
}
