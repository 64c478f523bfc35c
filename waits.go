package hark

import (
	"runtime"
	"strings"
	"sync"
)

// waits knows which handlers wait for which subscriptions to make room, so
// that no circle of them waits for ever.
type waits struct {
	mu    sync.Mutex
	edges map[*core]map[*core]int // from the consumer of a handler that waits
}

// enter notes that a handler of from is about to wait for to. It reports false,
// and notes nothing, if to waits for from already, directly or not.
func (w *waits) enter(from, to *core) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reaches(to, from, map[*core]bool{}) {
		return false
	}
	if w.edges == nil {
		w.edges = map[*core]map[*core]int{}
	}
	if w.edges[from] == nil {
		w.edges[from] = map[*core]int{}
	}
	w.edges[from][to]++
	return true
}

// leave ends what enter began.
func (w *waits) leave(from, to *core) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.edges[from][to]--; w.edges[from][to] == 0 {
		delete(w.edges[from], to)
	}
	if len(w.edges[from]) == 0 {
		delete(w.edges, from)
	}
}

func (w *waits) reaches(from, to *core, seen map[*core]bool) bool {
	if from == to {
		return true
	}
	seen[from] = true
	for next := range w.edges[from] {
		if !seen[next] && w.reaches(next, to, seen) {
			return true
		}
	}
	return false
}

// inHandler reports whether the caller runs below a handler, or the body of an
// iterator, of some subscription, or below an observer or the function of a
// listener. It looks at the stack: too slow for anything but a call that is about
// to wait, where the context does not tell.
func inHandler() bool {
	return below(handlerFrames...)
}

// inObserver reports whether the caller runs below an observer of some value.
func inObserver() bool { return below(observerFrames...) }

// below reports whether a method of one of the types that frames begin the
// names of, generic or not, is on the stack of the caller's caller.
func below(frames ...string) bool {
	pcs := make([]uintptr, 64)
	for skip := 3; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		stack := runtime.CallersFrames(pcs[:n])
		for n > 0 {
			frame, more := stack.Next()
			for _, prefix := range frames {
				if name, ok := strings.CutPrefix(frame.Function, prefix); ok && (name[0] == '[' || name[0] == ')') {
					return true
				}
			}
			if !more {
				break
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}

// handlerFrames begin the names of methods of which one is on the stack of
// every handler, observer and function of a listener; observerFrames are those
// of observers.
var (
	handlerFrames = []string{
		"github.com/harkbus/hark.(*worker",
		"github.com/harkbus/hark.(*callee",
		"github.com/harkbus/hark.(*round",
		"github.com/harkbus/hark.(*observer",
	}
	observerFrames = handlerFrames[2:]
)
