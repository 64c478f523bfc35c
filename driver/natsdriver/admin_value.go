package natsdriver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/harkbus/hark/driver"
)

// ValueInfo is a shared value as the server has it.
type ValueInfo struct {
	Name    string
	State   driver.State
	Changed time.Time
}

// ValueNames returns the names of values that match a pattern, or of all if it is
// empty, in order.
func (c *Conn) ValueNames(ctx context.Context, pattern string) ([]string, error) {
	names, err := c.streamSubjects(ctx, valueStream, valuePrefix, pattern)
	slices.Sort(names)
	return names, err
}

// ValueInfo returns a value, or ErrNotFound. It makes none, as OpenValue does.
func (c *Conn) ValueInfo(ctx context.Context, name string) (ValueInfo, error) {
	m, err := c.lastMessage(ctx, valueStream, valuePrefix+name)
	if m == nil && err == nil {
		err = fmt.Errorf("value %s is %w", name, ErrNotFound)
	}
	if err != nil {
		return ValueInfo{}, err
	}
	return ValueInfo{Name: name, State: driver.State{Version: m.Sequence, Data: m.Data}, Changed: m.Time}, nil
}
