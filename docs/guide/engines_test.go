package guide_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/harkbus/hark"
)

import _ "github.com/harkbus/hark/driver/filedriver"

// TestEngines runs the program of the page over two engines.
func TestEngines(t *testing.T) {
	for _, url := range []string{"mem:", "file:" + t.TempDir()} {
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
	readings, err := hark.NewTopic[float64](bus, "readings", hark.Stored(hark.Retention{}))
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
