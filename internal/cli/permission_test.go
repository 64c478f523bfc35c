package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/harkbus/hark/broker"
)

// TestRestrictedUser uses channels, values and notifications as a user who may
// publish to one topic: each ends with an error that says so, and none hangs.
func TestRestrictedUser(t *testing.T) {
	startBroker(t, "users: [{name: ada, token: '"+broker.HashToken("secret-of-ada")+"', publish: [orders]}]\n")
	t.Setenv("HARK_URL", strings.Replace(os.Getenv("HARK_URL"), "hark://", "hark://ada:secret-of-ada@", 1))
	if code, _, errs := call(t, "", "pub", "orders", "1"); code != exitOK {
		t.Fatalf("pub: got %d %s", code, errs)
	}
	for _, args := range []string{"chan info jobs", "value get config", "notify built", "latch built"} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			code, out, errs := call(t, "", strings.Fields(args)...)
			if code != exitFailed || out != "" || !strings.Contains(errs, "user may not") {
				t.Errorf("got %d %q %q, want %d and that the user may not", code, out, errs, exitFailed)
			}
		})
	}
}
