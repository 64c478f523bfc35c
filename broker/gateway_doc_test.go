package broker

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestGatewayDoc runs the commands of docs/gateway.md in order, and compares their
// output with what the page shows below them, where … stands for anything.
func TestGatewayDoc(t *testing.T) {
	t.Parallel()
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
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			cmd := exec.CommandContext(ctx, "sh", "-c", "exec "+strings.ReplaceAll(command, "localhost:7480", addr))
			out := &printed{}
			if cmd.Stdout = out; strings.Contains(command, " -sN ") { // it runs until it is stopped
				out.wrote = func() {
					if out.lacks(want) == "" {
						cancel()
					}
				}
			}
			if err := cmd.Run(); err != nil && ctx.Err() == nil {
				t.Errorf("%s: %v", command, err)
			}
			if line := out.lacks(want); line != "" {
				t.Errorf("%s\nprints %s\nwithout %s", command, &out.text, line)
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

// printed collects the output of a command.
type printed struct {
	text  bytes.Buffer
	wrote func() // called when there is more output, if not nil
}

func (p *printed) Write(text []byte) (int, error) {
	n, err := p.text.Write(text)
	if p.wrote != nil {
		p.wrote()
	}
	return n, err
}

// lacks returns the first of some lines, with … for anything, that does not follow
// those before it in the output, or "" if all are there.
func (p *printed) lacks(lines []string) string {
	got := strings.ReplaceAll(p.text.String(), "\r\n", "\n")
	for _, line := range lines {
		pattern := regexp.MustCompile("(?m)^" + strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + "$")
		at := pattern.FindStringIndex(got)
		if at == nil {
			return line
		}
		got = got[at[1]:]
	}
	return ""
}
