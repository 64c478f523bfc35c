package hark

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestNoBus uses what needs a bus without one.
func TestNoBus(t *testing.T) {
	_, errTopic := NewTopic[int](nil, "a")
	_, errPattern := SubscribePattern(nil, "a.*", func(context.Context, *Message[int]) error { return nil })
	_, errRequest := Request[int, int](t.Context(), nil, "a", 1)
	_, errReply := Reply(nil, "a", func(_ context.Context, n int) (int, error) { return n, nil })
	for what, err := range map[string]error{"topic": errTopic, "pattern": errPattern, "request": errRequest, "reply": errReply} {
		if !errors.Is(err, ErrInvalidOption) || !strings.Contains(err.Error(), "the bus is nil") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}
