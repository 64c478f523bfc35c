package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// serve answers requests with their text and a mark until the responder is closed.
// count waits for that and returns the number of answers.
func serve(t *testing.T, r driver.Responder, mark string) (count func() int) {
	t.Helper()
	n := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			calls, err := r.Receive(context.Background(), 8) // ends when the responder is closed
			if err != nil {
				if !errors.Is(err, driver.ErrEnded) {
					t.Errorf("receive: %v", err)
				}
				return
			}
			for _, c := range calls {
				n++
				answer := &driver.Message{Data: append([]byte(mark), c.Data...), Headers: map[string]string{"hark-error": "multi\nline"}}
				if err := c.Answer(testContext(t), answer); err != nil {
					t.Errorf("answer: %v", err)
				}
			}
		}
	}()
	return func() int {
		<-done
		return n
	}
}

func respond(t *testing.T, c *Conn, name string) driver.Responder {
	t.Helper()
	r, err := c.Respond(testContext(t), name, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRequest(t *testing.T) {
	s := startServer(t)
	a, b, c := s.open(t), s.open(t), s.open(t)
	if _, err := c.Request(testContext(t), "quote", &driver.Message{}); !errors.Is(err, driver.ErrNoResponders) {
		t.Errorf("got %v, want ErrNoResponders", err)
	}
	ra, rb := respond(t, a, "quote"), respond(t, b, "quote")
	na, nb := serve(t, ra, "re "), serve(t, rb, "re ")
	const requests = 200
	var wg sync.WaitGroup
	for i := range requests {
		wg.Go(func() {
			text := fmt.Sprint(i)
			m, err := c.Request(testContext(t), "quote", &driver.Message{Data: []byte(text), ContentType: "a/b"})
			if err != nil || string(m.Data) != "re "+text || m.Headers["hark-error"] != "multi\nline" || len(m.Headers) != 1 {
				t.Errorf("got %+v, %v", m, err)
			}
		})
		// One responder leaves halfway; no request given to it is lost.
		if i == requests/2 {
			wg.Go(func() {
				if err := ra.Close(testContext(t)); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		}
	}
	wg.Wait()
	if err := rb.Close(testContext(t)); err != nil {
		t.Error(err)
	}
	if x, y := na(), nb(); x+y != requests || y == 0 {
		t.Errorf("got %d and %d requests, want %d together", x, y, requests)
	}
}

func TestRequestsOfOthers(t *testing.T) {
	s := startServer(t)
	c := s.open(t)
	serve(t, respond(t, c, "quote"), "re ")
	topic := openTopic(t, c, "quote", nil)
	sub := subscribe(t, topic, driver.SubscribeConfig{})
	m, err := c.Client().Request("quote", []byte("plain"), patience)
	if err != nil || string(m.Data) != "re plain" {
		t.Errorf("got %v, %v", m, err)
	}
	publish(t, topic, "no request")
	if got := texts(receive(t, sub, 1)); got[0] != "no request" {
		t.Errorf("got %v", got)
	}
	// A plain NATS responder answers hark's requests.
	plain, err := c.Client().Subscribe("plain", func(m *nats.Msg) {
		if len(m.Header) != 1 || m.Header.Get(ceData) != "a/b" {
			t.Errorf("a request has the headers %v, want its media type only", m.Header)
		}
		_ = m.Respond([]byte("hi"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := c.Request(testContext(t), "plain", &driver.Message{ID: "1", Time: time.Now(), ContentType: "a/b"}); err != nil || string(m.Data) != "hi" || !m.Bare {
		t.Errorf("got %+v, %v", m, err)
	}
	if err := plain.Unsubscribe(); err != nil {
		t.Error(err)
	}
}

func TestRequestIsCancelled(t *testing.T) {
	s := startServer(t)
	c := s.open(t)
	r := respond(t, s.open(t), "slow")
	ctx, cancel := context.WithCancel(testContext(t))
	failed := make(chan error, 1)
	go func() {
		_, err := c.Request(ctx, "slow", &driver.Message{})
		failed <- err
	}()
	calls, err := r.Receive(testContext(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
	select {
	case <-calls[0].Context.Done():
	case <-testContext(t).Done():
		t.Error("the responder is not told")
	}
	if err := calls[0].Answer(testContext(t), &driver.Message{}); err != nil {
		t.Errorf("answer: %v", err)
	}
}

func TestRequestWhenTheConnectionIsLost(t *testing.T) {
	s := startServer(t)
	c, other := s.open(t), s.open(t)
	r := respond(t, other, "slow")
	failed := make(chan error, 1)
	go func() {
		_, err := c.Request(testContext(t), "slow", &driver.Message{})
		failed <- err
	}()
	if _, err := r.Receive(testContext(t), 1); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if err := <-failed; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that the connection was lost", err)
	}
	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Request(ctx, "slow", &driver.Message{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
	s.start()
	serve(t, r, "re ")
	eventually(t, "an answer", func() bool {
		m, err := c.Request(testContext(t), "slow", &driver.Message{Data: []byte("x")})
		return err == nil && string(m.Data) == "re x"
	})
	if err := r.Close(testContext(t)); err != nil {
		t.Error(err)
	}
}

var _ driver.Requester = (*Conn)(nil)

// TestRequestsAreNotStored makes requests under the pattern of a store. The
// requester gets the answer, however late, rather than the server's
// acknowledgement, and the store keeps nothing.
func TestRequestsAreNotStored(t *testing.T) {
	s := startServer(t, withJetStream)
	a, b := s.open(t), s.open(t)
	openStore(t, a, StoreConfig{Pattern: "s.>"})
	r := respond(t, a, "s.quote")
	answered := make(chan error, 1)
	go func() {
		answer, err := b.Request(testContext(t), "s.quote", &driver.Message{Data: []byte("1")})
		if err == nil && string(answer.Data) != "late" {
			err = fmt.Errorf("got %s", answer.Data)
		}
		answered <- err
	}()
	calls, err := r.Receive(testContext(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	put(t, asItIs(t, a, "s.other"), bare("the server has done with what came before")...)
	if err := calls[0].Answer(testContext(t), &driver.Message{Data: []byte("late")}); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if info, err := a.StoreInfo(testContext(t), "s.>"); err != nil || info.Messages != 1 {
		t.Errorf("got %+v, %v, want no request to be stored", info, err)
	}
	if err := r.Close(testContext(t)); err != nil {
		t.Error(err)
	}
}
