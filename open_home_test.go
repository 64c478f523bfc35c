package hark

import (
	"strings"
	"testing"

	"github.com/harkbus/hark/driver"
)

// TestNotLinked compares the hint of Open with the packages that register
// schemes. Those of all engines are linked into the tests.
func TestNotLinked(t *testing.T) {
	schemes := driver.Schemes()
	if len(schemes) < 2 {
		t.Errorf("got schemes %q, want those of all engines", schemes)
	}
	for _, scheme := range schemes {
		if home(scheme) == "" {
			t.Errorf("%s: has no package", scheme)
		}
	}
	if err := notLinked("file"); !strings.Contains(err.Error(), `import _ "github.com/harkbus/hark/driver/filedriver"`) {
		t.Errorf("file: got %v", err)
	}
}
