package disk

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// Streams writes the streams below a directory of a server to the disk. Its
// methods may be called by several goroutines at the same time.
type Streams struct {
	dir   string
	flush func(*os.File) error

	mu      sync.Mutex // guards the fields below, and the rounds of each stream
	streams map[string]*stream
	closed  bool
	running sync.WaitGroup
}

// stream is the work in progress for one stream.
type stream struct {
	files   files
	next    *round // the round after the running one; nil if nobody waits for it
	waiting int    // number of callers that wait for next
	running bool
}

// round is one flush of a stream's files to the disk.
type round struct {
	done chan struct{}
	err  error
}

// NewStreams returns the Streams of a directory that has a directory for each
// stream in it.
func NewStreams(dir string) *Streams {
	return &Streams{dir: dir, flush: (*os.File).Sync, streams: map[string]*stream{}}
}

// Sync returns when all that the server had acknowledged for a stream before the
// call is on the disk, or when ctx ends, with its cause.
func (s *Streams) Sync(ctx context.Context, name string) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed
	}
	st := s.streams[name]
	if st == nil {
		st = &stream{files: files{dir: filepath.Join(s.dir, name), flush: s.flush}}
		s.streams[name] = st
	}
	if st.next == nil {
		st.next = &round{done: make(chan struct{})}
	}
	r := st.next
	st.waiting++
	if !st.running {
		st.running = true
		s.running.Add(1)
		go s.run(st)
	}
	s.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run runs rounds as long as someone waits for one.
func (s *Streams) run(st *stream) {
	defer s.running.Done()
	for {
		gather(func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return st.waiting
		})
		s.mu.Lock()
		r := st.next
		st.next, st.waiting = nil, 0
		if r == nil {
			st.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		r.err = st.files.sync()
		close(r.done)
	}
}

// Close waits for what is under way and lets go of the files. Sync fails then.
func (s *Streams) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
	for _, st := range s.streams {
		st.files.close()
	}
}

// maxGather is how often gather looks whether more callers have joined.
const maxGather = 128

// gather returns when no more callers join the next round, whose callers waiting
// counts: a round takes as long for one caller as for many. It does not wait for ever
// if callers join without end, as those may whose contexts end before the round.
func gather(waiting func() int) {
	before := 0
	for range maxGather {
		now := waiting()
		if now == before {
			return
		}
		before = now
		runtime.Gosched()
	}
}
