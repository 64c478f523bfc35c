package store

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"sync"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// complaints collects the trouble that the server logs while it starts. It
// implements the server's Logger and passes everything on to another one.
type complaints struct {
	next natsserver.Logger // may be nil

	mu    sync.Mutex // guards what follows
	said  []string
	write string // the first write to the disk that failed
}

// critical is part of what the server logs when it gives up a stream because it
// cannot write to the disk. The server reports this nowhere else.
const critical = "critical write error"

// maxComplaints limits how many are kept.
const maxComplaints = 20

func (c *complaints) add(format string, v ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.said) < maxComplaints {
		c.said = append(c.said, strings.TrimSpace(fmt.Sprintf(format, v...)))
	}
}

// forget discards what was logged.
func (c *complaints) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said, c.write = nil, ""
}

// about returns what was logged that contains these words, or "".
func (c *complaints) about(words string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, said := range c.said {
		if strings.Contains(said, words) {
			return said
		}
	}
	return ""
}

// asError returns what was logged, as an error.
func (c *complaints) asError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.said) == 0 {
		return errors.New("the server does not say why")
	}
	return errors.New(strings.Join(c.said, "; "))
}

// Noticef implements the server's Logger.
func (c *complaints) Noticef(format string, v ...any) {
	if c.next != nil {
		c.next.Noticef(format, v...)
	}
}

// Debugf implements the server's Logger.
func (c *complaints) Debugf(string, ...any) {}

// Tracef implements the server's Logger.
func (c *complaints) Tracef(string, ...any) {}

// Warnf implements the server's Logger.
func (c *complaints) Warnf(format string, v ...any) {
	c.add(format, v...)
	if c.next != nil {
		c.next.Warnf(format, v...)
	}
}

// Errorf implements the server's Logger.
func (c *complaints) Errorf(format string, v ...any) {
	c.add(format, v...)
	if strings.Contains(format, critical) {
		c.mu.Lock()
		c.write = cmp.Or(c.write, strings.TrimSpace(fmt.Sprintf(format, v...)))
		c.mu.Unlock()
	}
	if c.next != nil {
		c.next.Errorf(format, v...)
	}
}

// Fatalf implements the server's Logger. The server continues without what
// failed.
func (c *complaints) Fatalf(format string, v ...any) {
	c.add(format, v...)
	if c.next != nil {
		c.next.Errorf(format, v...)
	}
}
