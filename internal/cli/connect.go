package cli

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/harkbus/hark"
	_ "github.com/harkbus/hark/driver/natsdriver" // for nats:, tls: and hark: URLs
)

// defaultURL is where hark serve listens unless it is told otherwise.
const defaultURL = "nats://127.0.0.1:7422"

// connectPatience is how long connecting may take.
const connectPatience = 10 * time.Second

// urlFlag declares --url.
func urlFlag(fs *flag.FlagSet) *string {
	return fs.String("url", "", "`URL`: the broker (HARK_URL; default "+defaultURL+")")
}

// connect opens a bus over the broker.
func connect(ctx context.Context, url string) (*hark.Bus, error) {
	if url == "" {
		url = os.Getenv("HARK_URL")
	}
	if url == "" {
		url = defaultURL
	}
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	bus, err := hark.Open(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("%w; is it running? hark serve starts one, --url and HARK_URL say where it is", err)
	}
	return bus, nil
}

// textCodec carries lines as they are: JSON where they are that.
type textCodec struct{ contentType string }

// ContentType implements hark.Codec.
func (c textCodec) ContentType() string { return c.contentType }

// Encode implements hark.Codec.
func (textCodec) Encode(v any) ([]byte, error) { return *v.(*[]byte), nil }

// Decode implements hark.Codec.
func (textCodec) Decode(data []byte, v any) error { *v.(*[]byte) = data; return nil }
