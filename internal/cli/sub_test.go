package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// TestSubIsReadSlowly reads a line of what a member of a group prints, and then nothing for
// longer than the lease. No other member gets what waits to be printed.
func TestSubIsReadSlowly(t *testing.T) {
	startBroker(t, "topics: [{name: stored, durability: memory}]")
	const lease = time.Second
	lines := []string{strings.Repeat("1", 99), strings.Repeat("2", 99), strings.Repeat("3", 99)}
	for _, line := range lines {
		if code, _, errs := call(t, "", "pub", "stored", line); code != exitOK {
			t.Fatal(errs)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, w := io.Pipe()
	var printing sync.WaitGroup
	defer printing.Wait()
	defer out.Close()
	printing.Go(func() {
		defer w.Close()
		var errs strings.Builder
		args := []string{"sub", "stored", "--url", os.Getenv("HARK_URL") + "?lease=" + lease.String(), "--group", "g", "--from", "start", "--count", "3", "--output", "data"}
		if code := Run(ctx, args, Streams{Out: w, Err: &errs}); code != exitOK {
			t.Errorf("got %d: %s", code, errs.String())
		}
	})
	printed := bufio.NewReaderSize(out, 1)
	for i, line := range lines {
		got, err := printed.ReadString('\n')
		if got != line+"\n" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		if i == 0 {
			nobodyGets(ctx, t, lease)
		}
	}
}

// nobodyGets joins the group for longer than a lease.
func nobodyGets(ctx context.Context, t *testing.T, lease time.Duration) {
	t.Helper()
	conn, err := natsdriver.Open(ctx, strings.Replace(os.Getenv("HARK_URL"), "hark:", "nats:", 1), natsdriver.Lease(lease))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	topic, err := conn.OpenTopic(ctx, driver.TopicConfig{Name: "stored", Stored: &driver.StoredConfig{Existing: true}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := topic.Subscribe(ctx, driver.SubscribeConfig{Group: "g", Window: 3})
	if err != nil {
		t.Fatal(err)
	}
	wait, end := context.WithTimeout(ctx, 5*lease/2)
	defer end()
	if ms, err := other.Receive(wait, 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another member got %d messages, %v", len(ms), err)
	}
}
