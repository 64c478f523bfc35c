package hark_test

import (
	"context"
	"encoding/xml"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver/memdriver"
)

// xmlCodec cannot read JSON, and the JSON codec cannot read its output.
type xmlCodec struct{}

func (xmlCodec) ContentType() string             { return "application/xml" }
func (xmlCodec) Encode(v any) ([]byte, error)    { return xml.Marshal(v) }
func (xmlCodec) Decode(data []byte, v any) error { return xml.Unmarshal(data, v) }

type point struct{ X, Y int }

var aPoint = point{3, 4}

// failing passes on the errors of handlers.
type failing chan error

func (f failing) OnFail(e hark.FailEvent) {
	select {
	case f <- e.Err:
	default:
	}
}

// link is two buses, and the failures on the second.
type link struct {
	from, to *hark.Bus
	failed   failing
}

// one returns the point that arrives, or the reason why none does.
func (l link) one(ctx context.Context, points <-chan point) (p point, err error) {
	select {
	case p = <-points:
	case err = <-l.failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return p, err
}

// features are the ways for a point to get from one bus to another.
var features = map[string]func(ctx context.Context, l link, opts ...hark.CodecOption) (point, error){
	"topic": func(ctx context.Context, l link, opts ...hark.CodecOption) (p point, err error) {
		as := func(b *hark.Bus) (*hark.Topic[point], error) {
			if len(opts) > 0 {
				return hark.NewTopic[point](b, "points", opts[0])
			}
			return hark.NewTopic[point](b, "points")
		}
		sent, err1 := as(l.from)
		heard, err2 := as(l.to)
		if err := errors.Join(err1, err2); err != nil {
			return p, err
		}
		points := make(chan point, 1)
		_, err = heard.Subscribe(func(_ context.Context, m *hark.Message[point]) error { points <- m.Value; return nil })
		if err := errors.Join(err, sent.Publish(ctx, aPoint)); err != nil {
			return p, err
		}
		return l.one(ctx, points)
	},
	"channel": func(ctx context.Context, l link, opts ...hark.CodecOption) (p point, err error) {
		as := func(b *hark.Bus) (*hark.Chan[point], error) {
			if len(opts) > 0 {
				return hark.NewChan[point](b, "points", 1, opts[0])
			}
			return hark.NewChan[point](b, "points", 1)
		}
		in, err1 := as(l.from)
		out, err2 := as(l.to)
		if err := errors.Join(err1, err2); err != nil {
			return p, err
		}
		if err := in.Send(ctx, aPoint); err != nil {
			return p, err
		}
		return out.Receive(ctx)
	},
	"value": func(_ context.Context, l link, opts ...hark.CodecOption) (p point, err error) {
		as := func(b *hark.Bus, initial point) (*hark.Value[point], error) {
			if len(opts) > 0 {
				return hark.NewValue(b, "points", initial, opts[0])
			}
			return hark.NewValue(b, "points", initial)
		}
		_, err1 := as(l.from, aPoint)
		v, err2 := as(l.to, point{})
		if err := errors.Join(err1, err2); err != nil {
			return p, err
		}
		return v.Get(), nil
	},
	"request": func(ctx context.Context, l link, opts ...hark.CodecOption) (p point, err error) {
		if len(opts) > 0 {
			return aPoint, nil // it has the codec of its bus
		}
		if _, err := hark.Reply(l.to, "same", func(_ context.Context, p point) (point, error) { return p, nil }); err != nil {
			return p, err
		}
		return hark.Request[point, point](ctx, l.from, "same", aPoint)
	},
	"pattern": func(ctx context.Context, l link, opts ...hark.CodecOption) (p point, err error) {
		if len(opts) > 0 {
			return aPoint, nil
		}
		points := make(chan point, 1)
		_, err1 := hark.SubscribePattern(l.to, "more.*", func(_ context.Context, m *hark.Message[point]) error { points <- m.Value; return nil })
		sent, err2 := hark.NewTopic[point](l.from, "more.points")
		if err := errors.Join(err1, err2); err != nil {
			return p, err
		}
		if err := sent.Publish(ctx, aPoint); err != nil {
			return p, err
		}
		return l.one(ctx, points)
	},
}

// TestCodecs sends a point through each feature with the codec of a feature, with
// that of a bus, and with two that differ.
func TestCodecs(t *testing.T) {
	for name, send := range features {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			open := func(opts ...hark.BusOption) link {
				engine, failed := memdriver.New(), make(failing, 1)
				l := link{hark.Over(engine.Connect(), opts...), hark.Over(engine.Connect(), hark.WithHooks(failed)), failed}
				t.Cleanup(func() {
					if err := errors.Join(l.from.Close(context.Background()), l.to.Close(context.Background())); err != nil {
						t.Error(err)
					}
				})
				return l
			}
			if p, err := send(ctx, open(), hark.WithCodec(xmlCodec{})); err != nil || p != aPoint {
				t.Errorf("WithCodec: got %v, %v", p, err)
			}
			l := open(hark.WithCodec(xmlCodec{}))
			if p, err := send(ctx, link{l.from, l.from, nil}); err != nil || p != aPoint {
				t.Errorf("WithCodec of the bus: got %v, %v", p, err)
			}
			_, err := send(ctx, open(hark.WithCodec(xmlCodec{})))
			if err == nil || !strings.Contains(err.Error(), "decode hark_test.point as application/json: ") {
				t.Errorf("XML read as JSON: got %v, want an error that says so", err)
			}
		})
	}
}

// TestCodecsAgree checks that all who name the same thing in one process must
// use the same codec.
func TestCodecsAgree(t *testing.T) {
	bus := hark.Over(memdriver.New().Connect())
	_, err1 := hark.NewTopic[point](bus, "p")
	_, err2 := hark.NewChan[point](bus, "p", 1)
	_, err3 := hark.NewValue(bus, "p", aPoint)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	for _, codec := range []hark.Codec{xmlCodec{}, nil} {
		_, err1 = hark.NewTopic[point](bus, "p", hark.WithCodec(codec))
		_, err2 = hark.NewChan[point](bus, "p", 1, hark.WithCodec(codec))
		_, err3 = hark.NewValue(bus, "p", aPoint, hark.WithCodec(codec))
		for feature, err := range map[string]error{"topic": err1, "channel": err2, "value": err3} {
			if !errors.Is(err, hark.ErrInvalidOption) || !strings.Contains(err.Error(), "WithCodec") {
				t.Errorf("%s with %v: got %v, want ErrInvalidOption", feature, codec, err)
			}
		}
	}
	if _, err := hark.NewValue(bus, "p", ""); !errors.Is(err, hark.ErrTypeMismatch) {
		t.Errorf("a value of another type: got %v, want ErrTypeMismatch", err)
	}
	if err := bus.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
