package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestDemoChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		code, out, errs := call(t, "", "demo", "channel", "--count", "4")
		want := "consumer 1: 1\nconsumer 1: 2\nconsumer 1: 3\nconsumer 1: 4\n4 sent, 4 received\n"
		if took := time.Since(start); code != exitOK || out != want || errs != "" || took != 3*time.Second {
			t.Errorf("got code %d after %v\n%s\n%s\nwant code %d after 3s\n%s", code, took, out, errs, exitOK, want)
		}
	})
}

// TestDemoChannelFlags checks the effect of each flag.
func TestDemoChannelFlags(t *testing.T) {
	tests := []struct {
		args string
		took time.Duration
		want []string // parts of the output
	}{
		{"--count 4 --interval 1m", 3 * time.Minute, []string{"4 sent"}},
		{"--count 5 --producers 2", 2 * time.Second, []string{": 5\n", "5 sent, 5 received"}},
		{"--count 3 --producers 10", 0, []string{"3 sent, 3 received"}},
		{"--count 20 --producers 2 --consumers 2 --capacity -1 --interval 1ms", 9 * time.Millisecond, []string{"consumer 1:", "consumer 2:", "20 sent"}},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			code, out, errs := call(t, "", append([]string{"demo", "channel"}, strings.Fields(tt.args)...)...)
			took := time.Since(start)
			if code != exitOK || took != tt.took {
				t.Errorf("%s: got code %d after %v\n%s\n%s\nwant code %d after %v", tt.args, code, took, out, errs, exitOK, tt.took)
			}
			for _, part := range tt.want {
				if !strings.Contains(out, part) {
					t.Errorf("%s: got\n%s\nwant %q in it", tt.args, out, part)
				}
			}
		})
	}
}

func TestDemoChannelInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		var out, errs bytes.Buffer
		code := Run(ctx, []string{"demo", "channel"}, Streams{Out: &out, Err: &errs})
		want := "consumer 1: 1\nconsumer 1: 2\nconsumer 1: 3\n3 sent, 3 received\n"
		if code != exitInterrupted || out.String() != want || errs.Len() > 0 {
			t.Errorf("got code %d\n%s\n%s\nwant code %d\n%s", code, &out, &errs, exitInterrupted, want)
		}
	})
}
