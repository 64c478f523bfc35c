package hark

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// Codec turns the values of a topic into bytes and back, where they leave the
// process. Its methods may be called by several goroutines at the same time.
type Codec interface {
	// ContentType is the media type of what Encode makes.
	ContentType() string
	// Encode returns the encoding of the value that v, a *T, points to.
	Encode(v any) ([]byte, error)
	// Decode sets the value that v, a *T, points to. It may keep data.
	Decode(data []byte, v any) error
}

// CodecOption is an option for what carries values; see WithCodec.
type CodecOption interface {
	TopicOption
	ChanOption
}

// WithCodec sets the codec of a topic or channel, instead of JSON, or for those
// of []byte the bytes as they are. In process values travel as they are, so
// there it is not called.
func WithCodec(c Codec) CodecOption { return codecOption{c} }

type codecOption struct{ codec Codec }

func (o codecOption) applyTopic(t *topicConfig) error { return o.set(&t.codec) }
func (o codecOption) applyChan(c *chanConfig) error   { return o.set(&c.codec) }

func (o codecOption) set(to *Codec) error {
	if o.codec == nil {
		return fmt.Errorf("%w: WithCodec(nil)", ErrInvalidOption)
	}
	*to = o.codec
	return nil
}

// Bare leaves the CloudEvents envelope out of the messages that a bus over an
// engine publishes to the topic: they are the encoded value and its headers,
// for speed or for readers that expect just that. Everybody can read both. In
// process there is no envelope.
func Bare() TopicOption {
	return topicOption(func(t *topicConfig) error {
		t.bare = true
		return nil
	})
}

// codecFor returns the codec for values of a type if none is given.
func codecFor(t reflect.Type) Codec {
	if t == reflect.TypeFor[[]byte]() {
		return rawCodec{}
	}
	return jsonCodec{}
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
