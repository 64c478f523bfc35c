package natsdriver

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// listKept is how long further pages of a list are served from what its first
	// page has read, at most.
	listKept = 30 * time.Second
	// listsKept is how many such lists a connection keeps at once.
	listsKept = 4
	// maxListTopics is how many topics a list may have to be kept: that many names
	// take some tens of megabytes.
	maxListTopics = 1_000_000
)

// storeLists are lists of the topics of stores that are being read page by page.
// The server can only return all topics at once, which takes a second for some
// 100,000, so it is asked once rather than for each page. A list read to its end is
// forgotten; an abandoned one stays until other lists take its place.
type storeLists struct {
	mu  sync.Mutex // guards all
	all []storeList
}

type storeList struct {
	store, pattern string
	read           time.Time
	topics         []string // sorted
}

// listTopics returns, in order, the names of the topics of a store that match a
// pattern and come after a given name; all of them if that is empty.
func (c *Conn) listTopics(ctx context.Context, store, pattern, after string) ([]string, error) {
	if after != "" {
		if topics := c.lists.find(store, pattern); topics != nil {
			return behind(topics, after), nil
		}
	}
	counts, err := c.StoreTopics(ctx, store, pattern)
	if err != nil {
		return nil, err
	}
	topics := make([]string, len(counts))
	for i, t := range counts {
		topics[i] = t.Topic
	}
	c.lists.keep(storeList{store, pattern, time.Now(), topics})
	return behind(topics, after), nil
}

// behind returns the part of a sorted list after a name.
func behind(topics []string, after string) []string {
	i, found := slices.BinarySearch(topics, after)
	if found {
		i++
	}
	return topics[i:]
}

func (l *storeLists) find(store, pattern string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(func(k storeList) bool { return time.Since(k.read) > listKept })
	for _, k := range l.all {
		if k.store == store && k.pattern == pattern {
			return k.topics
		}
	}
	return nil
}

func (l *storeLists) keep(k storeList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(func(old storeList) bool { return old.store == k.store && old.pattern == k.pattern })
	if len(k.topics) == 0 || len(k.topics) > maxListTopics {
		return
	}
	if len(l.all) == listsKept {
		l.all = slices.Delete(l.all, 0, 1)
	}
	l.all = append(l.all, k)
}

// end forgets a list that has been read to its end.
func (l *storeLists) end(store, pattern string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(func(k storeList) bool { return k.store == store && k.pattern == pattern })
}

func (l *storeLists) dropLocked(f func(storeList) bool) { l.all = slices.DeleteFunc(l.all, f) }
