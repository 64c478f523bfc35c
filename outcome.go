package hark

import (
	"context"
	"math/rand/v2"
	"time"
)

// Handler handles one message. What it returns decides what happens to the
// message. After nil, it is done. After Drop, Reject or RetryAfter, it is
// dropped, dead-lettered or retried as they say. After any other error, or a
// panic, it is retried according to the subscription's MaxAttempts and Backoff,
// and finally dead-lettered.
//
// ctx is cancelled when the subscription is closed or its Timeout has passed.
// Handlers should pass it on when they publish or wait: it tells hark which
// handler is waiting.
type Handler[T any] = func(ctx context.Context, m *Message[T]) error

// BatchHandler handles several messages at once. A *BatchError, unless it is
// wrapped, fails the items it names and no others; any other error fails all.
type BatchHandler[T any] = func(ctx context.Context, batch []*Message[T]) error

// outcome is an error that says what to do with the message.
type outcome struct {
	verdict verdict
	after   time.Duration
	err     error
}

type verdict uint8

const (
	retry verdict = iota
	retryAfter
	drop
	reject
)

func (o *outcome) Error() string {
	if o.err == nil {
		return [...]string{"retry", "retry later", "dropped", "rejected"}[o.verdict]
	}
	return o.err.Error()
}

func (o *outcome) Unwrap() error { return o.err }

// RetryAfter retries the message after d, at once if d is 0 or less, instead of the
// subscription's backoff; the attempt counts. err says why and may be nil.
func RetryAfter(d time.Duration, err error) error {
	return &outcome{verdict: retryAfter, after: max(d, 0), err: err}
}

// Drop gives up the message without a dead letter; the drop is counted. err says
// why and may be nil.
func Drop(err error) error { return &outcome{verdict: drop, err: err} }

// Reject gives up the message at once: it becomes a dead letter. err says why
// and may be nil.
func Reject(err error) error { return &outcome{verdict: reject, err: err} }

func verdictOf(err error) (verdict, time.Duration) {
	if o, ok := findIn[*outcome](err); ok {
		return o.verdict, o.after
	}
	return retry, 0
}

// BackoffPolicy says how long to wait before an attempt.
type BackoffPolicy struct {
	// Min is the longest wait before the second attempt; it doubles for each
	// one after that, up to Max. 0 is the default: 100 ms for Min, or Max if that
	// is less, and 30 s for Max, or Min if that is more.
	Min, Max time.Duration
	// Exact makes the wait the whole time instead of a random part of it.
	// Random waits (full jitter) keep retries of many messages apart.
	Exact bool
}

var defaultBackoff = BackoffPolicy{Min: 100 * time.Millisecond, Max: 30 * time.Second}

const defaultMaxAttempts = 10

// wait returns how long to wait after the given number of attempts.
func (b BackoffPolicy) wait(attempts int) time.Duration {
	d := b.Min
	for i := 1; i < attempts && d < b.Max; i++ {
		if d > b.Max/2 { // if doubled, it might not fit in a Duration
			d = b.Max
		} else {
			d *= 2
		}
	}
	d = min(d, b.Max)
	if b.Exact || d <= 0 {
		return d
	}
	return rand.N(d) + 1
}
