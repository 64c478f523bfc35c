package broker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestCallContext compares a context that creates its timer late with one that
// creates it at once.
func TestCallContext(t *testing.T) {
	errGone := errors.New("the client has gone")
	type key struct{}
	for _, tt := range []struct {
		name string
		do   func(ctx context.Context, leave context.CancelCauseFunc)
		want error // of Err
		why  error // of Cause
	}{
		{"goes on", func(context.Context, context.CancelCauseFunc) {}, nil, nil},
		{"is too late", func(context.Context, context.CancelCauseFunc) { time.Sleep(callTimeout) }, context.DeadlineExceeded, context.DeadlineExceeded},
		{"is waited for too long", func(ctx context.Context, _ context.CancelCauseFunc) { <-ctx.Done() }, context.DeadlineExceeded, context.DeadlineExceeded},
		{"ends with the request", func(_ context.Context, leave context.CancelCauseFunc) { leave(errGone) }, context.Canceled, errGone},
		{"ends with the request while it is waited for", func(ctx context.Context, leave context.CancelCauseFunc) {
			time.AfterFunc(time.Second, func() { leave(errGone) })
			<-ctx.Done()
		}, context.Canceled, errGone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				request, leave := context.WithCancelCause(context.WithValue(t.Context(), key{}, "ada"))
				defer leave(nil)
				c := &callContext{request: request, deadline: time.Now().Add(callTimeout)}
				if at, ok := c.Deadline(); !ok || !at.Equal(c.deadline) {
					t.Errorf("got deadline %v %v", at, ok)
				}
				tt.do(c, leave)
				if err := c.Err(); !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if why := context.Cause(c); !errors.Is(why, tt.why) {
					t.Errorf("got cause %v, want %v", why, tt.why)
				}
				// A derived context ends with it, without a goroutine of its own.
				child, cancel := context.WithCancel(c)
				defer cancel()
				synctest.Wait()
				if err := child.Err(); (err != nil) != (tt.want != nil) || !errors.Is(context.Cause(child), tt.why) {
					t.Errorf("one made of it: got %v, %v", err, context.Cause(child))
				}
				select {
				case <-c.Done():
					if tt.want == nil {
						t.Error("it is done")
					}
				default:
					if tt.want != nil {
						t.Error("it is not done")
					}
				}
				if got := c.Value(key{}); got != "ada" {
					t.Errorf("got value %v", got)
				}
				c.end()
				if c.Err() == nil {
					t.Error("it goes on behind its end")
				}
			})
		})
	}
	// Nobody waits, so there is nothing to end.
	(&callContext{request: t.Context(), deadline: time.Now().Add(callTimeout)}).end()
}
