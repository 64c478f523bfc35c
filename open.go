package hark

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/harkbus/hark/driver"
)

// Open returns a bus over the engine that the URL names: "mem:" for the one in
// this process, as New returns, or the scheme of an engine whose package is
// imported, such as
//
//	import _ "github.com/harkbus/hark/driver/natsdriver"
//
// It connects before it returns, waiting at most until ctx ends. Asking the
// engine for something it cannot do returns ErrUnsupported.
func Open(ctx context.Context, url string, opts ...BusOption) (*Bus, error) {
	// Show only the scheme of a URL, as the rest may hold a password.
	scheme, _, ok := strings.Cut(url, ":")
	switch {
	case !ok || scheme == "":
		return nil, fail("open", "", fmt.Errorf("%w: want a URL that begins with a scheme: %s", ErrInvalidOption, schemesText()))
	case url == "mem:":
		return New(opts...), nil
	case scheme == "mem":
		return nil, fail("open", scheme, fmt.Errorf("%w: mem: takes nothing more", ErrInvalidOption))
	}
	open := driver.Lookup(scheme)
	if open == nil {
		return nil, fail("open", scheme, notLinked(scheme))
	}
	conn, err := open(ctx, url)
	if err != nil {
		return nil, fail("open", scheme, engineError(err))
	}
	return Over(conn, opts...), nil
}

// notLinked returns the error for a scheme that no imported package has
// registered. It says what to do.
func notLinked(scheme string) error {
	if pkg := home(scheme); pkg != "" {
		return fmt.Errorf("%w: its engine is not linked into this program; import _ %q", ErrUnsupported, pkg)
	}
	return fmt.Errorf("%w: there is no engine for %s: URLs; this program has %s", ErrUnsupported, scheme, schemesText())
}

// home returns the package that registers the scheme of one of hark's own
// engines.
func home(scheme string) string {
	switch scheme {
	case "file":
		return "github.com/harkbus/hark/driver/filedriver"
	case "nats", "tls", "hark":
		return "github.com/harkbus/hark/driver/natsdriver"
	}
	return ""
}

func schemesText() string {
	return strings.Join(append([]string{"mem"}, driver.Schemes()...), ": ") + ":"
}

// Over returns a bus over a connection to an engine. The bus owns it from then
// on: Close closes it.
func Over(conn driver.Conn, opts ...BusOption) *Bus {
	b := New(opts...)
	b.engine = &engine{conn: conn, info: conn.Info()}
	if len(b.hooks.conn) > 0 {
		conn.Watch(func(up bool, reason error) {
			b.hooks.onConn(ConnEvent{Engine: b.engine.info.Engine, Address: b.engine.info.Address, Up: up, Err: reason})
		})
	}
	return b
}

// engine is what a bus that leaves the process knows of its engine.
type engine struct {
	conn driver.Conn
	info driver.Info
	// dirty reports that something was published that may be on its way back.
	dirty atomic.Bool
	respondents
}

// Engine describes the engine under the bus and what it can do. In process it
// is "mem".
func (b *Bus) Engine() driver.Info {
	if b.engine == nil {
		return inProcess
	}
	return b.engine.info
}

var inProcess = driver.Info{Engine: "mem", Can: []driver.Capability{
	driver.Stored, driver.StoredPatterns, driver.Dedup, driver.Delay, driver.EphemeralDelay, driver.KeyOrder, driver.Backpressure,
	driver.HandBack, driver.Deadlocks, driver.Memory, driver.Latches,
}}

// engineTimeout limits engine calls for which no one gave a context.
const engineTimeout = 10 * time.Second

func (e *engine) refuse(what string) error {
	return fmt.Errorf("%w: engine %s: %s", ErrUnsupported, e.info.Engine, what)
}

// needs returns an error if the engine has not declared the capability.
func (e *engine) needs(c driver.Capability) error {
	if e.info.Has(c) {
		return nil
	}
	return e.refuse(string(c))
}

// engineError converts an engine's error to one of hark's kinds.
func engineError(err error) error {
	for _, kind := range []struct{ theirs, ours error }{
		{driver.ErrClosed, ErrClosed},
		{driver.ErrUnsupported, ErrUnsupported},
		{driver.ErrConflict, ErrInvalidOption},
		{driver.ErrFull, ErrFull},
		{driver.ErrNoResponders, ErrNoResponders},
		{driver.ErrUnsure, ErrUnsure},
	} {
		if errors.Is(err, kind.theirs) {
			return kindError{kind.ours, err}
		}
	}
	return err
}

// kindError is an engine's error that errors.Is recognizes as a kind.
type kindError struct{ kind, err error }

func (e kindError) Error() string   { return e.err.Error() }
func (e kindError) Unwrap() []error { return []error{e.kind, e.err} }
