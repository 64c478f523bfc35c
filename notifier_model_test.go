package hark_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/harkbus/hark"
)

// notifierWorld is a notifier that a random walk operates on, and a model of
// it: plain lists, and a slow and obvious definition of what a target means.
type notifierWorld struct {
	t       *testing.T
	rnd     *rand.Rand
	n       *hark.Notifier
	all     []*hearer
	waits   []*waiting
	latched map[string]bool
}

// hearer is a listener, with what it should hear and what it has heard.
type hearer struct {
	l         *hark.Listener
	name, id  string
	live      bool
	want, got []string // what was notified, one for each notification
	merges    bool     // only the number and the last name are promised
	counted   int
}

// waiting is a call of Wait or WaitAny.
type waiting struct {
	names    []string
	any      bool
	come     map[string]bool
	cancel   context.CancelFunc
	ended    bool // according to the model, it has returned
	gaveUp   bool
	returned chan error
}

var notifierNames = []string{"a", "a.b", "a.c", "b.c", "a.T#M", "a.T#N", "a.T", "b.T#M"}

var notifierTargets = slices.Concat(notifierNames, []string{"*", "a.*", "*.T", "*.T#M", ">", ">#N", "c", "a.T#O"})

// means reports whether target means a listener with that ID under name.
func means(target, name, id string) bool {
	if target == id && id != "" {
		return true
	}
	owner, method, _ := strings.Cut(name, "#")
	wantOwner, wantMethod, ok := strings.Cut(target, "#")
	if ok && wantMethod != method {
		return false
	}
	have, want := strings.Split(owner, "."), strings.Split(wantOwner, ".")
	for i, token := range want {
		if token == ">" {
			return len(have) > i
		}
		if i >= len(have) || token != "*" && token != have[i] {
			return false
		}
	}
	return len(have) == len(want)
}

func (w *notifierWorld) pick(from []string) string { return from[w.rnd.IntN(len(from))] }

// sent tells the model of a notification and returns how many listeners it
// reaches.
func (w *notifierWorld) sent(target string) (reached int) {
	for _, h := range w.all {
		if h.live && means(target, h.name, h.id) {
			h.want = append(h.want, target)
			reached++
		}
	}
	for _, x := range w.waits {
		for _, name := range x.names {
			if !x.ended && !x.come[name] && means(target, name, "") {
				reached++
				x.come[name] = true
				x.settle()
			}
		}
	}
	return reached
}

func (x *waiting) settle() {
	all := true
	for _, name := range x.names {
		all = all && x.come[name]
	}
	x.ended = x.ended || all || x.any && len(x.come) > 0
}

// latchesFor returns the latches that apply to name, the one of its type first.
func (w *notifierWorld) latchesFor(name string) (latches []string) {
	owner, _, method := strings.Cut(name, "#")
	if w.latched[owner] {
		latches = append(latches, owner)
	}
	if method && w.latched[name] {
		latches = append(latches, name)
	}
	return latches
}

func (w *notifierWorld) register() {
	h := &hearer{name: w.pick(notifierNames), live: true, merges: w.rnd.IntN(2) == 0}
	h.want = w.latchesFor(h.name)
	var opts []hark.ListenOption
	if !h.merges {
		opts = []hark.ListenOption{hark.EachSignal(), hark.Buffer(1000)}
	}
	habit := w.rnd.IntN(4)
	f := func(_ context.Context, s hark.Signal) {
		h.counted += s.Count
		h.got = append(h.got, s.Name)
		switch {
		case habit == 0 && len(h.got)%3 == 0:
			panic("now and then")
		case habit == 1 && len(h.got)%3 == 0:
			runtime.Goexit()
		}
	}
	h.l = register(w.t, w.n, h.name, f, opts...)
	h.id = h.l.ID()
	w.all = append(w.all, h)
}

func (w *notifierWorld) wait() {
	x := &waiting{any: w.rnd.IntN(2) == 0, come: map[string]bool{}, returned: make(chan error, 1)}
	for range 1 + w.rnd.IntN(3) {
		name := w.pick(notifierNames)
		if slices.Contains(x.names, name) {
			continue
		}
		x.names = append(x.names, name)
		if len(w.latchesFor(name)) > 0 {
			x.come[name] = true
		}
	}
	x.settle()
	ctx, cancel := context.WithCancel(w.t.Context())
	x.cancel = cancel
	go func() {
		if x.any {
			name, err := w.n.WaitAny(ctx, x.names...)
			if err == nil && !slices.Contains(x.names, name) {
				err = errors.New("WaitAny returned " + name)
			}
			x.returned <- err
			return
		}
		x.returned <- w.n.Wait(ctx, x.names...)
	}()
	synctest.Wait()
	w.waits = append(w.waits, x)
}

func (w *notifierWorld) step() {
	ctx := w.t.Context()
	switch w.rnd.IntN(12) {
	case 0, 1:
		w.register()
	case 2:
		if len(w.all) > 0 {
			h := w.all[w.rnd.IntN(len(w.all))]
			synctest.Wait()
			h.live = false
			if err := h.l.Close(); err != nil {
				w.t.Error(err)
			}
		}
	case 3:
		w.wait()
	case 4:
		if len(w.waits) > 0 {
			x := w.waits[w.rnd.IntN(len(w.waits))]
			x.gaveUp = x.gaveUp || !x.ended
			x.ended = true
			x.cancel()
			synctest.Wait()
		}
	case 5:
		name := w.pick(notifierNames)
		if !w.latched[name] {
			w.sent(name)
		}
		w.latched[name] = true
		if err := w.n.Latch(ctx, name); err != nil {
			w.t.Error(err)
		}
	case 6:
		name := w.pick(notifierNames)
		delete(w.latched, name)
		if err := w.n.Unlatch(ctx, name); err != nil {
			w.t.Error(err)
		}
	case 7:
		synctest.Wait()
	default:
		target := w.pick(notifierTargets)
		if len(w.all) > 0 && w.rnd.IntN(4) == 0 {
			target = w.all[w.rnd.IntN(len(w.all))].id
		}
		notify(w.t, w.n, target, w.sent(target))
	}
}

// check compares what was heard with the model, once nothing moves any more.
func (w *notifierWorld) check() {
	synctest.Wait()
	live, waiters := 0, 0
	for _, h := range w.all {
		switch {
		case h.counted != len(h.want):
			w.t.Errorf("%s heard of %d notifications, want %d", h.id, h.counted, len(h.want))
		case !h.merges && !slices.Equal(h.got, h.want):
			w.t.Errorf("%s heard\n%v, want\n%v", h.id, h.got, h.want)
		case len(h.want) > 0 && h.got[len(h.got)-1] != h.want[len(h.want)-1]:
			w.t.Errorf("%s heard %s last, want %s", h.id, h.got[len(h.got)-1], h.want[len(h.want)-1])
		}
		if h.live {
			live++
		}
	}
	for _, x := range w.waits {
		if !x.ended {
			waiters++
			if len(x.returned) > 0 {
				w.t.Errorf("wait for %v returned after %v", x.names, x.come)
			}
			x.cancel()
			<-x.returned
			continue
		}
		select {
		case err := <-x.returned:
			if x.gaveUp != errors.Is(err, context.Canceled) || !x.gaveUp && err != nil {
				w.t.Errorf("wait for %v returned %v, gave up: %v", x.names, err, x.gaveUp)
			}
		default:
			w.t.Errorf("wait for %v has not returned after %v", x.names, x.come)
			x.cancel()
			<-x.returned
		}
	}
	s := w.n.Stats()
	var latched []string
	for name := range w.latched {
		latched = append(latched, name)
	}
	slices.Sort(latched)
	if !slices.Equal(s.Latched, latched) || s.Listeners != live || s.Waiting != 0 || s.Dropped != 0 {
		w.t.Errorf("got %+v, want %d listeners, latched %v", s, live, latched)
	}
}

// TestNotifierWalk operates randomly on a notifier and compares it with a
// model.
func TestNotifierWalk(t *testing.T) {
	walk(t, 30, func(t *testing.T, rnd *rand.Rand) {
		bus := hark.New()
		w := &notifierWorld{t: t, rnd: rnd, n: newNotifier(t, bus), latched: map[string]bool{}}
		for range 200 {
			w.step()
		}
		w.check()
		closeBus(t, bus)
		for name := range w.latched {
			if err := w.n.Latch(t.Context(), name); !errors.Is(err, hark.ErrClosed) {
				t.Errorf("latch after Close: %v", err)
			}
		}
	})
}
