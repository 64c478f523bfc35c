package broker

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/crypto/bcrypt"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/race"
)

func init() {
	if race.Enabled {
		// With the race detector, checking the usual hash takes a second.
		nobody = []byte("$2a$04$7EqJtq98hPqEX7fNZaFWoO5rwVt1X4JYv8QJ3r0L6m3v9yN1bX4aG")
	}
}

// users returns the configuration of users whose password or token is secret-NAME.
func users(t *testing.T) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret-ada"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("secret-bob"))
	return fmt.Sprintf(`
users:
  - {name: ada, password: %q, publish: [orders.>, ask], subscribe: region.*}
  - {name: bob, token: "sha256:%s", publish: [region.*], subscribe: [orders.>, ask]}
topics: [{name: orders.stored}, {name: secret}]
`, hash, hex.EncodeToString(sum[:]))
}

func TestUsersMustSayWhoTheyAre(t *testing.T) {
	b := start(t, config(t, users(t)))
	for _, tt := range []struct {
		who string
		ok  bool
	}{
		{"ada:secret-ada@", true},
		{"bob:secret-bob@", true},
		{"", false},
		{"ada@", false},
		{"ada:@", false},
		{"ada:secret-bob@", false},
		{"bob:secret-ada@", false},
		{"nobody:secret-ada@", false},
		{"secret-bob@", false},
		{internalUser + ":@", false},
		{internalUser + ":secret@", false},
	} {
		nc, err := nats.Connect("nats://"+tt.who+b.Addr().String(), nats.Timeout(patience))
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%q: got %v, want ok=%v", tt.who, err, tt.ok)
		}
		if err == nil {
			nc.Close()
		}
	}
}

// TestPasswordsTakeTheirTime makes clients wait for longer than the server usually
// waits before it pings new ones. The first thing they hear must still be whether
// they are let in.
func TestPasswordsTakeTheirTime(t *testing.T) {
	b := start(t, config(t, users(t)))
	b.auth.checking.timeout = patience
	release := checkNone(t, b) // the queue is full
	type client struct {
		password, want string
		conn           net.Conn
		in             *bufio.Reader
	}
	clients := []*client{{password: "secret-ada", want: "PONG\r\n"}, {password: "secret-bob", want: "-ERR 'Authorization Violation'\r\n"}}
	for _, c := range clients {
		var err error
		if c.conn, err = net.Dial("tcp", b.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer c.conn.Close()
		c.in = bufio.NewReader(c.conn)
		if _, err = c.in.ReadString('\n'); err == nil { // INFO
			_, err = fmt.Fprintf(c.conn, "CONNECT {\"user\":\"ada\",\"pass\":%q,\"lang\":\"go\",\"protocol\":1,\"verbose\":false}\r\nPING\r\n", c.password)
		}
		if err == nil {
			err = c.conn.SetReadDeadline(time.Now().Add(2500 * time.Millisecond))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range clients {
		if line, err := c.in.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: while the password waits to be checked the client hears %q, %v", c.password, line, err)
		}
	}
	release()
	for _, c := range clients {
		if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if got, err := c.in.ReadString('\n'); got != c.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", c.password, got, err, c.want)
		}
	}
}

// attempt returns the server's error about an operation of a user.
func attempt(t *testing.T, b *Broker, user string, do func(nc *nats.Conn) error) error {
	t.Helper()
	nc, err := nats.Connect("nats://"+user+":secret-"+user+"@"+b.Addr().String(), nats.CustomInboxPrefix(natsdriver.InboxPrefix(user)),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := errors.Join(do(nc), nc.Flush()); err != nil {
		return err
	}
	return nc.LastError() // the server reports the error before it answers
}

// TestPermissions lists what users try.
func TestPermissions(t *testing.T) {
	b := start(t, config(t, users(t)))
	tests := []struct {
		user, verb, subject string
		ok                  bool
	}{
		{"ada", "pub", "orders.placed", true},
		{"ada", "pub", "orders.a.b", true},
		{"ada", "pub", "orders", false},
		{"ada", "pub", "region.eu", false},
		{"ada", "pub", "secret", false},
		{"ada", "sub", "region.eu", true},
		{"ada", "sub", "region.*", true},
		{"ada", "sub", "orders.placed", false},
		{"ada", "sub", ">", false},
		{"ada", "sub", "*", false},
		{"ada", "sub", "_INBOX.>", false},
		{"ada", "sub", "_INBOX.bob.>", false},
		{"ada", "sub", "_INBOX.ada.x", true},
		{"ada", "sub", "$SYS.>", false},
		{"ada", "sub", "$HARK.k.region.*.*", true},
		{"ada", "sub", "$HARK.k.>", false},
		{"ada", "sub", "$HARK.k.secret.*", false},
		{"ada", "pub", "$HARK.k.orders.stored.7", true},
		{"ada", "pub", "$HARK.k.secret.7", false},
		{"ada", "pub", "_INBOX.bob.x", false},
		{"ada", "pub", "$JS.API.STREAM.CREATE.mine", false},
		{"ada", "pub", "$JS.API.STREAM.INFO.hark-topic-orders=stored", true},
		{"ada", "pub", "$JS.API.STREAM.INFO.hark-topic-secret", false},
		{"ada", "pub", "$JS.API.STREAM.DELETE.hark-topic-orders=stored", false},
		{"ada", "pub", "$JS.API.STREAM.UPDATE.hark-topic-orders=stored", false},
		{"ada", "pub", "$JS.API.STREAM.PURGE.hark-topic-orders=stored", false},
		{"ada", "pub", "$JS.API.CONSUMER.CREATE.hark-topic-orders=stored.c", false},
		{"ada", "pub", "$JS.API.STREAM.MSG.GET.hark-topic-orders=stored", false},
		{"ada", "pub", "$JS.API.DIRECT.GET.hark-topic-orders=stored", false},
		{"ada", "pub", "$JS.API.STREAM.NAMES", false},
		{"bob", "pub", "$JS.API.CONSUMER.CREATE.hark-topic-orders=stored.c", true},
		{"bob", "pub", "$JS.API.CONSUMER.CREATE.hark-topic-secret.c", false},
		{"bob", "pub", "$JS.API.CONSUMER.MSG.NEXT.hark-topic-secret.c", false},
		{"bob", "pub", "$JS.ACK.hark-topic-secret.c.1.1.1.1.1", false},
		{"bob", "pub", "$SYS.REQ.SERVER.PING", false},
	}
	for _, tt := range tests {
		err := attempt(t, b, tt.user, func(nc *nats.Conn) error {
			if tt.verb == "pub" {
				return nc.Publish(tt.subject, nil)
			}
			_, err := nc.SubscribeSync(tt.subject)
			return err
		})
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s %s %s: got %v, want ok=%v", tt.user, tt.verb, tt.subject, err, tt.ok)
		}
	}
}

// TestPatternsAreNotWidened subscribes to more than a permitted pattern covers,
// which the server itself does not refuse.
func TestPatternsAreNotWidened(t *testing.T) {
	b := start(t, config(t, users(t)))
	nc, err := nats.Connect("nats://ada:secret-ada@" + b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	got := make(chan *nats.Msg, 10)
	for _, wide := range []string{"region.>", "$HARK.k.region.*.>", "$HARK.s.*.region.>"} {
		if _, err := nc.ChanSubscribe(wide, got); err != nil {
			t.Fatal(err)
		}
	}
	for _, subject := range []string{"region.a.b", "$HARK.k.region.a.b.1", "$HARK.s.1.region.a.b", "$HARK.k.region.a.1", "$HARK.s.1.region.a", "region.a"} {
		if err := errors.Join(nc.Flush(), b.client.Publish(subject, nil), b.client.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"$HARK.k.region.a.1", "$HARK.s.1.region.a", "region.a"} {
		select {
		case m := <-got:
			if m.Subject != want {
				t.Errorf("got %s, want %s", m.Subject, want)
			}
		case <-testContext(t).Done():
			t.Fatalf("%s did not come", want)
		}
	}
}

func TestWidened(t *testing.T) {
	for _, tt := range []struct{ allowed, deny, fault string }{
		{"a b.>", "", ""},
		{"a.* b", "a.*.>", ""},
		{"a.* a.>", "", ""},
		{"a.* a.*.>", "", ""},
		{"a.* a.*.*", "", "a.* and a.*.*"},
		{"a.* a.b.c", "", "use a.>"},
		{"a.b.* c.*", "a.b.*.> c.*.>", ""},
		{"a.*.c", "", ""},
	} {
		deny, err := widened(strings.Fields(tt.allowed))
		if strings.Join(deny, " ") != tt.deny || (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%s: got %v, %v, want %s, %s", tt.allowed, deny, err, tt.deny, tt.fault)
		}
	}
}

// TestUserReadsTopicAndThoseBelow lets a user read a topic and its dead letters, in groups
// that keep the order of keys.
func TestUserReadsTopicAndThoseBelow(t *testing.T) {
	b := start(t, config(t, `
users: [{name: shop, token: "`+HashToken("secret-shop")+`", publish: orders.>, subscribe: orders.>}]
topics: [{name: orders.stored}, {name: orders.stored.dead}, {name: orders.stored.dead.eu.>}]
`))
	shop := dial(t, b, "shop:secret-shop@")
	for i, name := range []string{"orders.stored", "orders.stored.dead", "orders.stored.dead.eu.a"} {
		topic := storedTopic(t, shop, name)
		group, err := topic.Subscribe(testContext(t), driver.SubscribeConfig{Group: "g", Keyed: true, From: driver.FromStart, Window: 10})
		if err != nil {
			t.Fatal(err)
		}
		publishTo(t, topic, keyed(i, "k", `{}`))
		if err := group.Ack(testContext(t), receive(t, group, 1)); err != nil {
			t.Error(err)
		}
		if err := group.Close(testContext(t)); err != nil {
			t.Error(err)
		}
	}
}

// TestUsersWork uses hark within the permissions of users.
func TestUsersWork(t *testing.T) {
	b := start(t, config(t, users(t)))
	ada, bob := dial(t, b, "ada:secret-ada@"), dial(t, b, "bob:secret-bob@")

	all := listen(t, bob, "orders.>")
	placed := storedTopic(t, ada, "orders.stored")
	publishTo(t, placed, keyed(1, "k", `{}`), keyed(2, "k", `{}`))
	for i, m := range receive(t, all, 2) {
		if m.Topic != "orders.stored" || m.ID != fmt.Sprint("id-", i+1) {
			t.Errorf("got %+v", m)
		}
	}
	receive(t, replay(t, bob, "orders.stored"), 2)
	group, err := storedTopic(t, bob, "orders.stored").Subscribe(testContext(t), driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := group.Ack(testContext(t), receive(t, group, 2)); err != nil {
		t.Error(err)
	}

	answers, err := bob.Respond(testContext(t), "ask", 1)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		calls, err := answers.Receive(t.Context(), 1)
		if err == nil {
			_ = calls[0].Answer(context.WithoutCancel(t.Context()), &driver.Message{Data: []byte("42")}) // if it is lost, the test notices
		}
	}()
	answer, err := ada.Request(testContext(t), "ask", &driver.Message{Data: []byte("?")})
	if err != nil || string(answer.Data) != "42" {
		t.Errorf("got %v, %v", answer, err)
	}

	// What they may not do fails, and does not hang.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := ada.OpenTopic(ctx, driver.TopicConfig{Name: "mine", Stored: &driver.StoredConfig{Durability: driver.DurableRelaxed}}); err == nil {
		t.Error("a topic was made without permission")
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	text := users(t)
	c := config(t, text)
	b := start(t, c)
	_, err := Load(Source{File: write(t, strings.ReplaceAll(text, "sha256:", "sha255:"))})
	if err == nil {
		t.Fatal("no error")
	}
	for _, secret := range []string{c.Users[0].Password, strings.TrimPrefix(c.Users[1].Token, tokenPrefix), b.auth.secret} {
		if strings.Contains(b.Summary()+err.Error(), secret) {
			t.Errorf("%q is shown", secret)
		}
	}
}
