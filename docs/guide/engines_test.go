package guide_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/harkbus/hark"
)

import _ "github.com/harkbus/hark/driver/filedriver"

// TestEngines runs the program of the page over two engines, the second of which has
// the topic already, with another limit.
func TestEngines(t *testing.T) {
	dir := "file:" + t.TempDir()
	bus, err := hark.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hark.NewTopic[float64](bus, "readings", hark.Stored(hark.Retention{MaxMessages: 10})); err != nil {
		t.Fatal(err)
	}
	if err := bus.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"mem:", dir} {
		if err := engines(t.Context(), url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func engines(ctx context.Context, url string) error {
	bus, err := hark.Open(ctx, url)
	if err != nil {
		return err
	}
	defer bus.Close(ctx)
	readings, err := hark.NewTopic[float64](bus, "readings",
		hark.Stored(hark.Retention{MaxAge: 24 * time.Hour}), hark.Existing())
	if err != nil {
		return err
	}
	if err := readings.Publish(ctx, 20.5); err != nil {
		return err
	}
	for m, err := range readings.Messages(ctx, hark.FromStart()) {
		if err == nil && m.Value != 20.5 {
			err = fmt.Errorf("got %v, want 20.5", m.Value)
		}
		return errors.Join(err, ctx.Err())
	}
	return os.ErrNotExist
}
