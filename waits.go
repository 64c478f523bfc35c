package hark

import (
	"runtime"
	"strings"
	"sync"
)

// waits records which handlers wait for which subscriptions to make room, so
// that no cycle of them waits forever.
type waits struct {
	mu    sync.Mutex
	edges map[*core]map[*core]int // keyed first by the consumer of the handler that waits
}

// enter records that a handler of from is about to wait for to. It returns
// false, and records nothing, if to already waits for from, directly or
// indirectly.
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

// leave reverts enter.
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

// inHandler reports whether the caller runs in a handler or the body of an
// iterator of some subscription, in an observer, or in the function of a
// listener. It examines the stack, which is too slow except for a call that is
// about to wait and whose context does not tell.
func inHandler() bool {
	return below(handlerFrames...)
}

// inObserver reports whether the caller runs in an observer of some value.
func inObserver() bool { return below(observerFrames...) }

// below reports whether the stack of the caller's caller has a method of one of
// the types whose names begin with one of frames, generic or not.
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

// handlerFrames are prefixes of method names. One of them is on the stack of
// every handler, observer and listener function. observerFrames are those of
// observers.
var (
	handlerFrames = []string{
		"github.com/harkbus/hark.(*worker",
		"github.com/harkbus/hark.(*callee",
		"github.com/harkbus/hark.(*round",
		"github.com/harkbus/hark.(*observer",
	}
	observerFrames = handlerFrames[2:]
)
