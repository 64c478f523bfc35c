package hark

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// Codec converts the values of a topic to bytes and back, where they leave the
// process. Its methods may be called concurrently. If one panics, it has failed
// with a *PanicError.
type Codec interface {
	// ContentType is the media type of what Encode makes.
	ContentType() string
	// Encode returns the encoding of the value that v, a *T, points to. It must not
	// keep v.
	Encode(v any) ([]byte, error)
	// Decode sets the value that v, a *T, points to. It may keep data.
	Decode(data []byte, v any) error
}

// CodecOption is an option for what carries values; see WithCodec.
type CodecOption interface {
	BusOption
	TopicOption
	ChanOption
	ValueOption
}

// WithCodec sets the codec of a topic, a channel or a value. The default is
// JSON, or for []byte the bytes themselves. In process values are not encoded,
// so the codec is not called.
//
// As an option of a bus it replaces JSON everywhere on it, including for
// patterns and requests, which have no codec of their own. A nil codec is
// ErrInvalidOption, except on a bus, where it changes nothing.
//
// Everyone must use the same codec for the same thing: decoding what another
// codec has encoded returns an error that says which codec could not read it.
func WithCodec(c Codec) CodecOption { return codecOption{c} }

type codecOption struct{ codec Codec }

func (o codecOption) applyTopic(t *topicConfig) error { return o.set(&t.codec) }
func (o codecOption) applyChan(c *chanConfig) error   { return o.set(&c.codec) }
func (o codecOption) applyValue(c *valueConfig) error { return o.set(&c.codec) }
func (o codecOption) applyBus(b *Bus)                 { b.codec = o.codec }

func (o codecOption) set(to *Codec) error {
	if o.codec == nil {
		return fmt.Errorf("%w: WithCodec(nil)", ErrInvalidOption)
	}
	*to = o.codec
	return nil
}

// Bare omits the CloudEvents envelope from messages that a bus over an engine
// publishes to the topic: they are only the encoded value and its headers, for
// speed or for readers that expect just that. Every subscriber can read both
// forms. In process there is no envelope.
func Bare() TopicOption {
	return topicOption(func(t *topicConfig) error {
		t.bare = true
		return nil
	})
}

// codecFor returns the codec for values of a type, for use if their carrier was
// given none.
func (b *Bus) codecFor(t reflect.Type) Codec {
	switch {
	case t == reflect.TypeFor[[]byte]():
		return rawCodec{}
	case b.codec != nil:
		return b.codec
	}
	return jsonCodec{}
}

// encodeWith encodes the value that v, a *T, points to. If the codec panics, as
// a MarshalJSON method of the value may, the error is a *PanicError.
func encodeWith(c Codec, v any) (data []byte, err error) {
	returned := false
	defer func() {
		if !returned {
			err = caught(recover())
		}
		if err != nil {
			err = fmt.Errorf("encode %v: %w", reflect.TypeOf(v).Elem(), err)
		}
	}()
	data, err = c.Encode(v)
	returned = true
	return data, err
}

// decodeWith decodes data into the value that v points to. Its error says what
// could not be decoded, and with which codec. A panic becomes an error too, so
// that data from others cannot end the program.
func decodeWith[T any](c Codec, data []byte, v *T) (err error) {
	returned := false
	defer func() {
		if !returned {
			err = caught(recover())
		}
		if err != nil {
			err = fmt.Errorf("decode %v as %s: %w", reflect.TypeFor[T](), c.ContentType(), err)
		}
	}()
	err = c.Decode(data, v)
	returned = true
	return err
}

var errOtherCodec = fmt.Errorf("%w: it exists without this WithCodec; the first call must have the options", ErrInvalidOption)

// otherCodec reports whether the wanted codec has a type other than that of the
// used one.
func otherCodec(wanted, used Codec) bool {
	return wanted != nil && reflect.TypeOf(wanted) != reflect.TypeOf(used)
}

const jsonType = "application/json"

type jsonCodec struct{}

func (jsonCodec) ContentType() string             { return jsonType }
func (jsonCodec) Encode(v any) ([]byte, error)    { return json.Marshal(v) }
func (jsonCodec) Decode(data []byte, v any) error { return json.Unmarshal(data, v) }

type rawCodec struct{}

func (rawCodec) ContentType() string             { return "application/octet-stream" }
func (rawCodec) Encode(v any) ([]byte, error)    { return *v.(*[]byte), nil }
func (rawCodec) Decode(data []byte, v any) error { *v.(*[]byte) = data; return nil }
