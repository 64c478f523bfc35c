package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the program as scripts do. There is one script for each noun
// in testdata/script, each with a broker of its own, whose URLs are in HARK_URL
// and HTTP_URL. The broker's topic orders is stored. At NOT_HARK something else
// listens.
//
// Besides the commands of testscript there are: hark ARG..., which must
// succeed; exits CODE ARG..., which must exit with that code; and eventually
// [-exit CODE] ARG..., which is retried until it does.
func TestScripts(t *testing.T) {
	bin := build(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			config := filepath.Join(env.WorkDir, "hark.yaml")
			if err := os.WriteFile(config, []byte("topics: [{name: orders}]\n"), 0o600); err != nil {
				return err
			}
			p := begin(t, bin, "serve", "--config", config, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", filepath.Join(env.WorkDir, "hark-data"))
			env.Setenv("HARK_URL", p.waitFor(t, `hark://\S+`))
			env.Setenv("HTTP_URL", p.waitFor(t, `http://\S+`))
			env.Setenv("NOT_HARK", "hark://"+silent(t))
			env.Setenv("HARK_CONTEXTS", filepath.Join(env.WorkDir, "contexts.json"))
			env.Setenv("PATH", filepath.Dir(bin)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Defer(func() { p.kill(t) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"hark": func(ts *testscript.TestScript, neg bool, args []string) { exits(ts, neg, "0", args) },
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) == 0 {
					ts.Fatalf("exits: want a code")
				}
				exits(ts, neg, args[0], args[1:])
			},
			"eventually": func(ts *testscript.TestScript, neg bool, args []string) {
				want := 0
				if len(args) > 1 && args[0] == "-exit" {
					n, err := strconv.Atoi(args[1])
					ts.Check(err)
					want, args = n, args[2:]
				}
				for start := time.Now(); ; {
					code, err := run(ts, args)
					ts.Check(err)
					if code == want && !neg {
						return
					}
					if time.Since(start) > 60*time.Second {
						ts.Fatalf("it still ends with %d, want %d", code, want)
					}
				}
			},
		},
	})
}

// silent returns the address of a listener that sends nothing.
func silent(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// exits runs the program and checks its exit code.
func exits(ts *testscript.TestScript, neg bool, want string, args []string) {
	code, err := run(ts, args)
	ts.Check(err)
	if fmt.Sprint(code) != want || neg {
		ts.Fatalf("it ended with %d, want %s", code, want)
	}
}

// run runs the program and returns its exit code.
func run(ts *testscript.TestScript, args []string) (int, error) {
	err := ts.Exec("hark", args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}
