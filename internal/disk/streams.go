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

	mu      sync.Mutex // guards what follows, and the rounds of each stream
	streams map[string]*stream
	closed  bool
	running sync.WaitGroup
}

// stream is what one stream has under way.
type stream struct {
	files   files
	next    *round // who waits for the round after the one that runs; nil if nobody does
	waiting int    // how many do
	running bool
}

// round is one time that the files of a stream are written to the disk.
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

// run makes rounds as long as somebody waits for one.
func (s *Streams) run(st *stream) {
	defer s.running.Done()
	for {
		s.gather(st)
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

// gather returns when nobody joins those who wait for the next round any more:
// a round takes as long for one as for many.
func (s *Streams) gather(st *stream) {
	for before := 0; ; runtime.Gosched() {
		s.mu.Lock()
		now := st.waiting
		s.mu.Unlock()
		if now == before {
			return
		}
		before = now
	}
}
