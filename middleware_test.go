package hark_test

import (
	"context"
	"strings"
	"testing"

	"github.com/harkbus/hark"
)

// TestUseRefusesNil holds Use to saying at once, and not at the next Subscribe,
// that a middleware is nil.
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
