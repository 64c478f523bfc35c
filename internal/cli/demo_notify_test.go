package cli

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/harkbus/hark/internal/leak"
)

func TestDemoNotify(t *testing.T) {
	leak.Check(t)
	code, out, errs := call(t, "", "demo", "notify", "--rounds", "2", "--start", "41")
	want := `initialized with 41
42 was incremented by another goroutine
41 was decremented by another goroutine
42 was incremented by another goroutine
41 was decremented by another goroutine
the final value is 41 after 4 changes
`
	if code != exitOK || out != want || errs != "" {
		t.Errorf("got code %d\n%s\n%s\nwant code %d\n%s", code, out, errs, exitOK, want)
	}
	code, out, _ = call(t, "", "demo", "notify", "--goroutines", "200")
	if want := "the final value is 0 after 2000 changes\n"; code != exitOK || !strings.HasSuffix(out, want) || strings.Count(out, "\n") != 2002 {
		t.Errorf("200 goroutines: got code %d and %d lines\n%s\nwant 2002 and at last %q", code, strings.Count(out, "\n"), out, want)
	}
}

func TestDemoNotifyInterrupted(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	code := make(chan int)
	go func() {
		code <- Run(ctx, []string{"demo", "notify", "--rounds", "1000000000"}, Streams{Out: write, Err: io.Discard})
		write.Close()
	}()
	some := make([]byte, 500)
	if _, err := io.ReadFull(read, some); err != nil {
		t.Fatal(err)
	}
	cancel()
	rest := make(chan string)
	go func() {
		all, _ := io.ReadAll(read)
		rest <- string(all)
	}()
	if got := <-code; got != exitInterrupted {
		t.Errorf("got code %d, want %d", got, exitInterrupted)
	}
	if got := <-rest; !strings.Contains(got, "\nstopped with ") {
		t.Errorf("it ended with\n%s\nwant a last line about the number", got)
	}
}
