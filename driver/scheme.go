package driver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Opener opens a connection to the engine that a URL names.
type Opener func(ctx context.Context, url string) (Conn, error)

var schemes = struct {
	sync.Mutex
	openers map[string]Opener
}{openers: map[string]Opener{}}

// Register makes an engine known to hark.Open under the scheme of its URLs. It
// is called from the init function of the engine's package, and panics if the
// scheme is taken.
func Register(scheme string, open Opener) {
	schemes.Lock()
	defer schemes.Unlock()
	if schemes.openers[scheme] != nil {
		panic(fmt.Sprintf("driver: the scheme %s is registered twice", scheme))
	}
	schemes.openers[scheme] = open
}

// Lookup returns the opener of a scheme, nil if there is none.
func Lookup(scheme string) Opener {
	schemes.Lock()
	defer schemes.Unlock()
	return schemes.openers[scheme]
}

// Schemes returns the registered schemes, sorted.
func Schemes() []string {
	schemes.Lock()
	defer schemes.Unlock()
	return slices.Sorted(maps.Keys(schemes.openers))
}
