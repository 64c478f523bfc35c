package hark_test

import (
	"context"
	"strings"
	"testing"

	"github.com/harkbus/hark"
)

// TestUseRefusesNil checks that Use reports a nil middleware at once rather
// than at the next Subscribe.
func TestUseRefusesNil(t *testing.T) {
	bus, topic := trapBus[int](t)
	func() {
		defer func() {
			if text, _ := recover().(string); !strings.Contains(text, "hark: Use: middleware 2 of 2 is nil") {
				t.Errorf("got %q", text)
			}
		}()
		bus.Use(func(next hark.MessageHandler) hark.MessageHandler { panic("nobody subscribes with it") }, nil)
	}()
	mustSubscribe(t, topic, func(context.Context, *hark.Message[int]) error { return nil })
}
