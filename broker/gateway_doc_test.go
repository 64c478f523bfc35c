package broker

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestGatewayDoc runs the commands of docs/gateway.md in their order, and holds what
// they print to what stands below them, where … stands for anything.
func TestGatewayDoc(t *testing.T) {
	program(t, "curl", "the page shows commands of it")
	page, err := os.ReadFile("../docs/gateway.md")
	if err != nil {
		t.Fatal(err)
	}
	yaml := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(page)
	b := start(t, config(t, string(yaml[1])))
	addr := b.HTTPAddr().String()
	ran := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(page, -1) {
		var command string
		var want []string
		check := func() {
			if command == "" {
				return
			}
			ran++
			text := strings.ReplaceAll(command, "localhost:7480", addr)
			patience := 20 * time.Second
			if strings.Contains(text, " -sN ") { // it goes on until it is ended
				patience = 1500 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(testContext(t), patience)
			defer cancel()
			out, err := exec.CommandContext(ctx, "sh", "-c", "exec "+text).Output()
			if err != nil && ctx.Err() == nil {
				t.Errorf("%s: %v", command, err)
			}
			got := strings.ReplaceAll(string(out), "\r\n", "\n")
			for _, line := range want {
				pattern := regexp.MustCompile("(?m)^" + strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + "$")
				at := pattern.FindStringIndex(got)
				if at == nil {
					t.Errorf("%s\nprints %s\nwithout %s", command, out, line)
					return
				}
				got = got[at[1]:]
			}
		}
		for line := range strings.Lines(string(block[1])) {
			line = strings.TrimSuffix(line, "\n")
			if shown, ok := strings.CutPrefix(line, "#"); ok {
				want = append(want, strings.TrimPrefix(shown, " "))
				continue
			}
			check()
			command, want = line, nil
		}
		check()
	}
	if ran < 10 {
		t.Errorf("%d commands were run: is the page read as it is written?", ran)
	}
}
