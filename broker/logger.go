package broker

import (
	"fmt"
	"log"
	"log/slog"
	"strconv"
	"strings"
)

// serverLog forwards the NATS server's log to a slog.Logger. It implements the
// server's Logger.
type serverLog struct {
	log   *slog.Logger
	proxy *proxy // knows the addresses of clients; may be nil
}

// ofProxy is how the server names a client of the proxy, before its number.
const ofProxy = "pipe - cid:"

func (l serverLog) text(format string, v []any) string {
	text := strings.TrimSpace(fmt.Sprintf(format, v...))
	rest, ok := strings.CutPrefix(text, ofProxy)
	if !ok {
		return text
	}
	number, _, _ := strings.Cut(rest, " ")
	id, err := strconv.ParseUint(number, 10, 64)
	if from := l.proxy.addressOf(id); err == nil && from != "" {
		return from + strings.TrimPrefix(text, "pipe")
	}
	return text
}

// Noticef implements the server's Logger. Its notices about starting only help
// those who look for faults.
func (l serverLog) Noticef(format string, v ...any) { l.log.Debug(l.text(format, v)) }

// Warnf implements the server's Logger.
func (l serverLog) Warnf(format string, v ...any) { l.log.Warn(l.text(format, v)) }

// Errorf implements the server's Logger.
func (l serverLog) Errorf(format string, v ...any) { l.log.Error(l.text(format, v)) }

// Fatalf implements the server's Logger.
func (l serverLog) Fatalf(format string, v ...any) { l.log.Error(l.text(format, v)) }

// Debugf implements the server's Logger.
func (l serverLog) Debugf(string, ...any) {}

// Tracef implements the server's Logger.
func (l serverLog) Tracef(string, ...any) {}

// newErrorLog returns a logger for package net/http.
func newErrorLog(l *slog.Logger) *log.Logger {
	return slog.NewLogLogger(l.With("part", "http").Handler(), slog.LevelDebug)
}
