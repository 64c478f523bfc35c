package natsdriver

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/driver"
)

// receiveCall returns the next request of a responder.
func receiveCall(t *testing.T, r driver.Responder) *driver.Call {
	t.Helper()
	calls, err := r.Receive(testContext(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	return calls[0]
}

// An answer may look like a stream's refusal to store the request.
func TestAnswerLikeAStreams(t *testing.T) {
	s := startServer(t)
	c := s.open(t)
	r := respond(t, c, "quote")
	const data = `{"error":{"err_code":10060}}`
	done := make(chan error, 1)
	go func() {
		m, err := c.Request(testContext(t), "quote", &driver.Message{})
		if err == nil && string(m.Data) != data {
			err = fmt.Errorf("got %s", m.Data)
		}
		done <- err
	}()
	if err := receiveCall(t, r).Answer(testContext(t), &driver.Message{Data: []byte(data), ContentType: octetStream}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// An answer has no envelope: nothing is said of bytes, and of other data their media type.
func TestAnswerIsNoEvent(t *testing.T) {
	s := startServer(t)
	c := s.open(t)
	r := respond(t, c, "quote")
	for mediaType, want := range map[string]nats.Header{
		"application/octet-stream": nil,
		"application/json":         {"ce-datacontenttype": {"application/json"}},
	} {
		done := make(chan *nats.Msg, 1)
		go func() {
			m, err := c.Client().Request("quote", nil, patience)
			if err != nil {
				t.Error(err)
			}
			done <- m
		}()
		call := receiveCall(t, r)
		if err := call.Answer(testContext(t), &driver.Message{Data: []byte("1"), ContentType: mediaType}); err != nil {
			t.Fatal(err)
		}
		if m := <-done; m != nil && fmt.Sprint(m.Header) != fmt.Sprint(want) {
			t.Errorf("%s: got headers %v, want %v", mediaType, m.Header, want)
		}
		asked := make(chan *driver.Message, 1)
		go func() {
			m, err := c.Request(testContext(t), "quote", &driver.Message{})
			if err != nil {
				t.Error(err)
			}
			asked <- m
		}()
		if err := receiveCall(t, r).Answer(testContext(t), &driver.Message{ContentType: mediaType}); err != nil {
			t.Fatal(err)
		}
		if m := <-asked; m != nil && mediaType != octetStream && m.ContentType != mediaType {
			t.Errorf("got the media type %s, want %s", m.ContentType, mediaType)
		}
	}
}
