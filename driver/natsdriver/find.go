package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// The methods below look at what others have created, without creating it.

// FindChan returns the configuration with which a channel was created, and whether
// the channel exists.
func (c *Conn) FindChan(ctx context.Context, name string) (config driver.ChanConfig, found bool, err error) {
	err = c.admin(ctx, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, streamName("chan", name))
		if err != nil {
			return err
		}
		meta := stream.CachedInfo().Config.Metadata
		config = driver.ChanConfig{Name: name}
		if config.Capacity, err = strconv.Atoi(meta[metaCapacity]); err != nil || meta[metaChan] != name {
			return fmt.Errorf("stream %s is not channel %s", stream.CachedInfo().Config.Name, name)
		}
		for d, class := range durabilities {
			if class.name == meta[metaDurability] {
				config.Durability = d
			}
		}
		found = true
		return nil
	})
	return config, found, err
}

// DeleteChan deletes a channel with its values. It is no error if there is no such
// channel. Those that have it open lose it.
func (c *Conn) DeleteChan(ctx context.Context, name string) error {
	return c.admin(ctx, func(ctx context.Context) error { return c.api(ctx).DeleteStream(ctx, streamName("chan", name)) })
}

// FindValue returns the state of a value, and whether it has one.
func (c *Conn) FindValue(ctx context.Context, name string) (state driver.State, found bool, err error) {
	err = c.admin(ctx, func(ctx context.Context) error {
		stream, err := c.api(ctx).Stream(ctx, valueStream)
		if err != nil {
			return err
		}
		m, err := stream.GetLastMsgForSubject(ctx, valuePrefix+name)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err == nil {
			state, found = driver.State{Version: m.Sequence, Data: m.Data}, true
		}
		return err
	})
	return state, found, err
}
