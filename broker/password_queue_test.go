package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
)

// triedPasswords is a queue whose checks wait until they are released.
type triedPasswords struct {
	*passwordQueue
	tried   chan string   // receives the name being checked
	letOne  chan struct{} // releases one check
	results sync.Map      // by name: nil, or an error
	all     sync.WaitGroup
}

func newTriedPasswords() *triedPasswords {
	return &triedPasswords{passwordQueue: newPasswordQueue(), tried: make(chan string, 1000), letOne: make(chan struct{})}
}

func (q *triedPasswords) try(ctx context.Context, host, password string) {
	key := passwordKey{host: host}
	copy(key.mark[:], password)
	q.all.Go(func() {
		_, err := q.do(ctx, key, func() *user {
			q.tried <- host + " " + password
			<-q.letOne
			return nil
		})
		q.results.Store(host+" "+password, err)
	})
	synctest.Wait()
}

// letGo releases n checks, and returns their names.
func (q *triedPasswords) letGo(n int) (tried []string) {
	for range n {
		q.letOne <- struct{}{}
		synctest.Wait()
	}
	for len(q.tried) > 0 {
		tried = append(tried, <-q.tried)
	}
	return tried
}

// result returns the result for a name, and whether it is known.
func (q *triedPasswords) result(who string) (error, bool) {
	got, ok := q.results.Load(who)
	err, _ := got.(error)
	return err, ok
}

// empty fails the test if the queue holds anything that nobody waits for.
func (q *triedPasswords) empty(t *testing.T) {
	t.Helper()
	if q.checked != 0 || q.waiting != 0 || len(q.checks) != 0 || len(q.hosts) != 0 || len(q.turns) != 0 {
		t.Errorf("left: %d checked, %d waiting, %d checks, %d hosts, turns %q", q.checked, q.waiting, len(q.checks), len(q.hosts), q.turns)
	}
}

// TestPasswordsTakeTurns sends more passwords than may wait from one address, and a
// few from another. The excess ones of the first are refused at once, and the
// second gets every other turn.
func TestPasswordsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTriedPasswords()
		for i := range passwordsAtOnce + passwordsOfHost + 1 {
			q.try(t.Context(), "evil", fmt.Sprint(i))
		}
		if err, ok := q.result(fmt.Sprint("evil ", passwordsAtOnce+passwordsOfHost)); !ok || err == nil || err.(*refusal).Status != http.StatusServiceUnavailable {
			t.Errorf("one too many: got %v, %v", err, ok)
		}
		for i := range 2 {
			q.try(t.Context(), "good", fmt.Sprint(i))
		}
		want := []string{"evil 0", "evil 1", "evil 2", "good 0", "evil 3", "good 1", "evil 4", "evil 5"}
		if got := q.letGo(6); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		q.letGo(passwordsOfHost + passwordsAtOnce + 2 - 6)
		q.all.Wait()
		q.empty(t)
	})
}

// TestPasswordsOfManyHosts fills the queue from a few addresses. A client from
// another address is let in, at the expense of the last one from those. When as
// many addresses wait as there is room for, a further one is refused.
func TestPasswordsOfManyHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTriedPasswords()
		for i := range passwordsAtOnce {
			q.try(t.Context(), "first", fmt.Sprint(i))
		}
		for i := range passwordsWaiting {
			q.try(t.Context(), fmt.Sprint("evil", i%4), fmt.Sprint(i/4))
		}
		q.try(t.Context(), "good", "0")
		gone := 0
		for i := range 4 {
			if err, ok := q.result(fmt.Sprint("evil", i, " ", passwordsWaiting/4-1)); ok && err != nil {
				gone++
			}
		}
		if _, ok := q.result("good 0"); ok || gone != 1 || q.waiting != passwordsWaiting {
			t.Errorf("%d have gone for the one who came, %d wait", gone, q.waiting)
		}
		if tried := q.letGo(5); !slices.Contains(tried, "good 0") {
			t.Errorf("the other address is not among the first: %q", tried)
		}
		q.letGo(passwordsWaiting + passwordsAtOnce - 5)
		q.all.Wait()
		q.empty(t)

		for i := range passwordsWaiting + passwordsAtOnce {
			q.try(t.Context(), fmt.Sprint("one", i), "0")
		}
		q.try(t.Context(), "one more", "0")
		if err, ok := q.result("one more 0"); !ok || err == nil {
			t.Errorf("one more than wait: got %v, %v", err, ok)
		}
		q.letGo(passwordsWaiting + passwordsAtOnce)
		q.all.Wait()
		q.empty(t)
	})
}

// TestSamePasswords connects many clients of one address with the same password:
// one check serves them all. Those that give up before their turn leave nothing
// behind.
func TestSamePasswords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTriedPasswords()
		for range 500 {
			q.try(t.Context(), "good", "same")
		}
		if got := q.letGo(1); !slices.Equal(got, []string{"good same"}) {
			t.Errorf("checked %q", got)
		}
		q.all.Wait()
		q.empty(t)

		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for i := range passwordsAtOnce {
			q.try(t.Context(), "good", fmt.Sprint(i))
		}
		for _, who := range []string{"a", "b", "c"} {
			q.try(short, who, "gone")
			q.try(short, who, "gone")
		}
		q.try(t.Context(), "b", "gone") // another caller stays
		<-time.After(2 * time.Second)   // in the bubble's time
		synctest.Wait()
		if err, ok := q.result("a gone"); !ok || err == nil {
			t.Errorf("who is not served in time: got %v, %v", err, ok)
		}
		want := []string{"good 0", "good 1", "b gone"}
		if got := q.letGo(passwordsAtOnce + 1); !slices.Equal(got, want) {
			t.Errorf("checked %q, want %q", got, want)
		}
		q.all.Wait()
		for range passwordsAtOnce { // the callers leave just as their turn comes
			q.leave(q.join(passwordKey{host: "gone"}))
		}
		q.empty(t)
	})
}

// TestPasswordsAreBounded lets strangers try more passwords over NATS and over HTTP
// than are checked. One too many is told at once to try again, the others are
// refused, and meanwhile clients with a token, or with the right password from
// another address, are let in.
func TestPasswordsAreBounded(t *testing.T) {
	b := start(t, config(t, users(t)))
	ctx := testContext(t)
	b.auth.checking.timeout = patience
	release := checkNone(t, b)
	waiting := func(want int) { t.Helper(); awaitPasswords(t, b, want) }
	var strangers []*raw
	for i := range passwordsOfHost {
		r := &raw{dialBroker(t, b), nil}
		defer r.Close()
		r.in = bufio.NewReader(r)
		r.write(t, fmt.Sprintf("CONNECT {\"user\":\"ada\",\"pass\":\"guess-%d\"}\r\nPING\r\n", i))
		strangers = append(strangers, r)
	}
	waiting(passwordsOfHost)
	connect := func(who string) error {
		nc, err := nats.Connect("nats://"+who+"@"+b.Addr().String(), nats.Timeout(patience))
		if err == nil {
			nc.Close()
		}
		return err
	}
	if err := connect("ada:secret-ada"); err == nil || errors.Is(err, nats.ErrAuthorization) || !strings.Contains(strings.ToLower(err.Error()), "too many passwords") {
		t.Errorf("one too many: got %v", err)
	}
	if err := connect("bob:secret-bob"); err != nil {
		t.Errorf("a token need not wait: got %v", err)
	}
	identify := func(address string) (*principal, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		if err != nil {
			return nil, err
		}
		r.RemoteAddr = address
		r.SetBasicAuth("ada", "secret-ada")
		return b.auth.identify(r)
	}
	if _, err := identify("127.0.0.1:7"); err == nil || err.(*refusal).Status != http.StatusServiceUnavailable {
		t.Errorf("one too many over HTTP: got %v, want 503", err)
	}
	let := make(chan error, 1)
	go func() { _, err := identify("192.0.2.1:7"); let <- err }()
	waiting(passwordsOfHost + 1)
	release()
	if err := <-let; err != nil {
		t.Errorf("the right password from elsewhere: got %v", err)
	}
	for _, r := range strangers {
		line := r.expect(t, "-ERR")
		if !strings.Contains(line, "Authorization Violation") && !strings.Contains(line, "Authentication Timeout") { // after 5 s
			t.Errorf("got %q", line)
		}
	}
}

// checkNone keeps a broker from checking passwords until the returned function is
// called.
func checkNone(t *testing.T, b *Broker) (release func()) {
	t.Helper()
	held := make(chan struct{})
	var all sync.WaitGroup
	for i := range passwordsAtOnce {
		all.Go(func() {
			_, _ = b.auth.checking.do(context.Background(), passwordKey{host: fmt.Sprint(i)}, func() *user { <-held; return nil }) // there is no such user
		})
	}
	awaitPasswords(t, b, 0)
	release = sync.OnceFunc(func() { close(held); all.Wait() })
	t.Cleanup(release)
	return release
}

// awaitPasswords returns once the maximum number of passwords is being checked, and
// a number of others wait.
func awaitPasswords(t *testing.T, b *Broker, waiting int) {
	t.Helper()
	q := b.auth.checking
	for ctx := testContext(t); ; {
		q.mu.Lock()
		ok := q.checked == passwordsAtOnce && q.waiting == waiting
		q.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d passwords do not wait", waiting)
		case <-time.After(time.Millisecond):
		}
	}
}
