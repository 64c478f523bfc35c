//go:build unix

package cli

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// TestUnread has commands wait for something to print until nobody reads it any more.
func TestUnread(t *testing.T) {
	startBroker(t, "topics: [{name: stored}]")
	if code, _, errs := call(t, "", "value", "set", "v", "1"); code != exitOK {
		t.Fatal(errs)
	}
	if code, _, errs := call(t, "", "chan", "send", "c", "1", "--capacity", "1"); code != exitOK {
		t.Fatal(errs)
	}
	if code, _, errs := call(t, "", "pub", "stored", "1"); code != exitOK {
		t.Fatal(errs)
	}
	for _, args := range []string{
		"sub stored --from start --output data",
		"sub stored --from start --group g --output data",
		"sub stored --from start --where true --output data",
		"value watch v",
		"chan receive c",
	} {
		out, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		var errs bytes.Buffer
		done := make(chan int, 1)
		go func() { done <- Run(ctx, strings.Fields(args), Streams{Out: w, Err: &errs}) }()
		line := make([]byte, 2)
		if n, err := out.Read(line); string(line[:n]) != "1\n" || err != nil {
			t.Errorf("%s: got %q, %v", args, line[:n], err)
		}
		_ = out.Close()
		if code, said := <-done, slowly.ReplaceAllString(errs.String(), ""); code != exitUnread || said != "" {
			t.Errorf("%s: got %d %s, want %d", args, code, said, exitUnread)
		}
		cancel()
		_ = w.Close()
	}
}
