package store

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"sync"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// serverLog collects the warnings and errors that the server logs. It implements
// the server's Logger and passes what it gets on to another one.
type serverLog struct {
	next natsserver.Logger // may be nil

	mu         sync.Mutex // guards the fields below
	faults     []string
	writeFault string // the first failed write to the disk
}

// critical is part of what the server logs when it gives up a stream because it
// cannot write to the disk. The server reports this nowhere else.
const critical = "critical write error"

// maxFaults limits how many are kept.
const maxFaults = 20

func (l *serverLog) add(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) < maxFaults {
		l.faults = append(l.faults, strings.TrimSpace(fmt.Sprintf(format, v...)))
	}
}

// forget discards what was logged.
func (l *serverLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults, l.writeFault = nil, ""
}

// about returns what was logged that contains these words, or "".
func (l *serverLog) about(words string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fault := range l.faults {
		if strings.Contains(fault, words) {
			return fault
		}
	}
	return ""
}

// asError returns what was logged, as an error.
func (l *serverLog) asError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) == 0 {
		return errors.New("the server gives no reason")
	}
	return errors.New(strings.Join(l.faults, "; "))
}

// Noticef implements the server's Logger.
func (l *serverLog) Noticef(format string, v ...any) {
	if l.next != nil {
		l.next.Noticef(format, v...)
	}
}

// Debugf implements the server's Logger.
func (l *serverLog) Debugf(string, ...any) {}

// Tracef implements the server's Logger.
func (l *serverLog) Tracef(string, ...any) {}

// Warnf implements the server's Logger.
func (l *serverLog) Warnf(format string, v ...any) {
	l.add(format, v...)
	if l.next != nil {
		l.next.Warnf(format, v...)
	}
}

// Errorf implements the server's Logger.
func (l *serverLog) Errorf(format string, v ...any) {
	l.add(format, v...)
	if strings.Contains(format, critical) {
		l.mu.Lock()
		l.writeFault = cmp.Or(l.writeFault, strings.TrimSpace(fmt.Sprintf(format, v...)))
		l.mu.Unlock()
	}
	if l.next != nil {
		l.next.Errorf(format, v...)
	}
}

// Fatalf implements the server's Logger. The server continues without what
// failed.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.add(format, v...)
	if l.next != nil {
		l.next.Errorf(format, v...)
	}
}
