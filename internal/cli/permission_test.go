package cli

import (
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/harkbus/hark/broker"
)

// TestRestrictedUser uses channels, values and notifications as a user who may only
// publish to one topic. Each command fails with an error that says so, names the
// subject and tells what to add; none hangs.
func TestRestrictedUser(t *testing.T) {
	startBroker(t, "users: [{name: ada, token: '"+broker.HashToken("secret-of-ada")+"', publish: [orders]}]\n")
	t.Setenv("HARK_URL", strings.Replace(os.Getenv("HARK_URL"), "hark://", "hark://ada:secret-of-ada@", 1))
	if code, _, errs := call(t, "", "pub", "orders", "1"); code != exitOK {
		t.Fatalf("pub: got %d %s", code, errs)
	}
	code, _, errs := call(t, "1\n2\n", "pub", "other")
	for _, part := range []string{"0 messages published", "user may not do this", `Publish to "other"`, "hark.yaml"} {
		if code != exitFailed || !strings.Contains(errs, part) {
			t.Errorf("pub to another topic: got %d %q, want %d and %q", code, errs, exitFailed, part)
		}
	}
	for _, list := range []string{"topic list", "value list", "dlq list"} {
		if code, out, errs := call(t, "", strings.Fields(list)...); code != exitOK || out != "" || !strings.Contains(errs, "that this user may administer") {
			t.Errorf("%s: got %d %q %q, want nothing that this user may administer", list, code, out, errs)
		}
	}
	var all sync.WaitGroup
	for _, args := range []string{"chan info jobs", "value get config", "notify built", "latch built"} {
		all.Go(func() {
			code, out, errs := call(t, "", strings.Fields(args)...)
			if code != exitFailed || out != "" {
				t.Errorf("%s: got %d %q, want %d and nothing", args, code, out, exitFailed)
			}
			for _, part := range []string{"user may not do this", "$", `publish: [">"]`} {
				if !strings.Contains(errs, part) {
					t.Errorf("%s: got %q, which does not say %q", args, errs, part)
				}
			}
		})
	}
	all.Wait()
}
