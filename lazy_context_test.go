package hark

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// The context of a responder ends with its handlers' context, with its requester's, at
// its requester's deadline and when it returns, whenever it is first looked at.
func TestContextOfResponder(t *testing.T) {
	why := errors.New("no longer wanted")
	for what, tt := range map[string]struct {
		end  func(c *lazyContext, handlers, requester context.CancelCauseFunc)
		want error
	}{
		"handlers":  {func(_ *lazyContext, handlers, _ context.CancelCauseFunc) { handlers(why) }, why},
		"requester": {func(_ *lazyContext, _, requester context.CancelCauseFunc) { requester(why) }, why},
		"deadline":  {func(*lazyContext, context.CancelCauseFunc, context.CancelCauseFunc) { time.Sleep(time.Hour) }, context.DeadlineExceeded},
		"return":    {func(c *lazyContext, _, _ context.CancelCauseFunc) { c.end() }, context.Canceled},
	} {
		for _, looked := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				consumer := &core{}
				handlers, endHandlers := context.WithCancelCause(handlerContext{context.Background(), consumer})
				requester, endRequester := context.WithCancelCause(context.Background())
				defer endHandlers(nil)
				defer endRequester(nil)
				q := call[int, int]{ctx: requester, deadline: time.Now().Add(time.Hour)}
				c := q.context(handlers)
				defer c.end()
				if handlerOf(c) != consumer || c.made != nil {
					t.Errorf("%s: the context does not tell its consumer, or was made for that", what)
				}
				if looked && c.Err() != nil {
					t.Errorf("%s: ended early: %v", what, c.Err())
				}
				tt.end(c, endHandlers, endRequester)
				synctest.Wait()
				if got := context.Cause(c); got != tt.want || c.Err() == nil {
					t.Errorf("%s, looked at before %v: got %v, want %v", what, looked, got, tt.want)
				}
				<-c.Done()
			})
		}
	}
}
