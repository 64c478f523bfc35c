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

// ValueNames returns the sorted names of the values that match a pattern, or of all
// values if it is empty.
func (c *Conn) ValueNames(ctx context.Context, pattern string) ([]string, error) {
	names, err := c.streamSubjects(ctx, valueStream, valuePrefix, pattern)
	slices.Sort(names)
	return names, err
}

// ValueInfo describes a value, or returns ErrNotFound. Unlike OpenValue it does not
// create one.
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
