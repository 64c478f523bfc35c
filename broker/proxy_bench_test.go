package broker

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
)

// BenchmarkProxy publishes small messages, to no subscriber and to ten, and sends
// requests: through the proxy as a restricted user and as one who may do
// everything, and to a broker without users, which has no proxy.
func BenchmarkProxy(b *testing.B) {
	const window = 1000 // how many messages are on their way
	with, without := start(b, config(b, proxyUsers(0))), start(b, config(b, "topics: [{name: mine, durability: relaxed}]"))
	connect := func(b *testing.B, who string) *nats.Conn {
		url := "nats://" + without.Addr().String()
		var opts []nats.Option
		if who != "" {
			url, opts = "nats://"+who+":secret-"+who+"@"+with.Addr().String(), append(opts, nats.CustomInboxPrefix("_INBOX."+who))
		}
		nc, err := nats.Connect(url, opts...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(nc.Close)
		return nc
	}
	for _, who := range []struct{ name, publisher, subscriber string }{{"none", "", ""}, {"restricted", "eve", "bob"}, {"everything", "all", "all"}} {
		for _, size := range []int{16, 16 << 10} {
			for _, readers := range []int{0, 1, 10} {
				b.Run(fmt.Sprintf("user=%s/size=%d/readers=%d", who.name, size, readers), func(b *testing.B) {
					nc, data := connect(b, who.publisher), make([]byte, size)
					heard := make(chan struct{}, readers)
					for range readers {
						sub := connect(b, who.subscriber)
						n := 0
						if _, err := sub.Subscribe("ask", func(*nats.Msg) {
							if n++; n%window == 0 || n == b.N {
								heard <- struct{}{}
							}
						}); err != nil {
							b.Fatal(err)
						}
						if err := sub.Flush(); err != nil {
							b.Fatal(err)
						}
					}
					b.SetBytes(int64(size))
					b.ResetTimer()
					for i := range b.N {
						if err := nc.Publish("ask", data); err != nil {
							b.Fatal(err)
						}
						if i%window < window-1 && i < b.N-1 {
							continue
						}
						if err := nc.Flush(); err != nil {
							b.Fatal(err)
						}
						for range readers { // so that nobody becomes a slow consumer
							<-heard
						}
					}
				})
			}
		}
		b.Run("user="+who.name+"/stored", func(b *testing.B) {
			nc := connect(b, who.publisher)
			for b.Loop() {
				if _, err := nc.Request("mine", []byte("0123456789abcdef"), patience); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
