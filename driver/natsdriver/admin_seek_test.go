package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/harkbus/hark/driver"
)

// interrupted calls end before it moves or creates a consumer, once left of these calls
// have been made.
type interrupted struct {
	jetstream.JetStream
	left int
	end  func()
}

func (i *interrupted) step() {
	if i.left--; i.left < 0 {
		i.end()
	}
}

func (i *interrupted) ResetConsumerToSequence(ctx context.Context, stream, consumer string, seq uint64) (*jetstream.ConsumerResetResponse, error) {
	i.step()
	return i.JetStream.ResetConsumerToSequence(ctx, stream, consumer, seq)
}

func (i *interrupted) CreateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	i.step()
	return i.JetStream.CreateConsumer(ctx, stream, cfg)
}

// seekHalfway moves a group and ends the call after some steps.
func seekHalfway(t *testing.T, c *Conn, group string, seq uint64, steps int) {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	js := c.js
	c.js = &interrupted{js, steps, cancel}
	defer func() { c.js = js }()
	if err := c.SeekGroup(ctx, "t", group, seq); !errors.Is(err, ErrPartlyMoved) || !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want ErrPartlyMoved and the cause", err)
	}
}

// manyKeys makes n messages with keys in all partitions.
func manyKeys(first, n int) []*driver.Message {
	ms := bare(numbered(first, n)...)
	for i, m := range ms {
		m.Key, m.HasKey = "k"+strconv.Itoa(i%100), true
	}
	return ms
}

func sequences(rs []*driver.Received) []uint64 {
	seqs := make([]uint64, len(rs))
	for i, r := range rs {
		seqs[i] = r.Seq
	}
	slices.Sort(seqs)
	return seqs
}

// upTo returns the numbers from first to last.
func upTo(first, last uint64) (seqs []uint64) {
	for ; first <= last; first++ {
		seqs = append(seqs, first)
	}
	return seqs
}

// A group whose move was ended halfway is moved by the same call, and until then its
// members have what they should from where each part of it is.
func TestSeekEndsHalfway(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	topic := openTopic(t, c, "t", relaxed())
	if err := topic.Publish(testContext(t), manyKeys(1, 200)); err != nil {
		t.Fatal(err)
	}
	member := joinKeyed(t, topic)
	finish := func(rs []*driver.Received) {
		t.Helper()
		if err := errors.Join(member.Ack(testContext(t), rs), member.Close(testContext(t))); err != nil {
			t.Fatal(err)
		}
	}
	finish(receive(t, member, 200))
	const moved = 9 // the messages without a key, and eight slots
	seekHalfway(t, c, "g", 1, moved)
	want := 0
	for _, m := range manyKeys(1, 200) {
		if partitionOf(m.Key) < moved-1 {
			want++
		}
	}
	member = joinKeyed(t, topic)
	got := receive(t, member, want)
	for _, r := range got {
		if partitionOf(r.Key) >= moved-1 {
			t.Errorf("message %d came again, although its part was not moved", r.Seq)
		}
	}
	finish(got)
	if err := c.SeekGroup(testContext(t), "t", "g", 1); err != nil {
		t.Fatal(err)
	}
	member = joinKeyed(t, topic)
	got = receive(t, member, 200)
	if !slices.Equal(sequences(got), upTo(1, 200)) {
		t.Errorf("got %v, want all messages once", sequences(got))
	}
	finish(got)
}

// A group whose move was ended while one of its consumers was not there is not
// forgotten, and the same call moves it.
func TestSeekForgetsNoGroup(t *testing.T) {
	for keyed, steps := range map[bool]int{false: 2, true: 4} {
		for steps := range steps {
			t.Run(fmt.Sprintf("keyed=%v/steps=%d", keyed, steps), func(t *testing.T) {
				c := startServer(t, withJetStream).open(t)
				topic := openTopic(t, c, "t", relaxed())
				cfg := driver.SubscribeConfig{Group: "g", Keyed: keyed} // from the next message on
				s := subscribe(t, topic, cfg)
				if err := errors.Join(topic.Publish(testContext(t), manyKeys(1, 20)), s.Close(testContext(t))); err != nil {
					t.Fatal(err)
				}
				nobodyListens(t, c, "g")
				seekHalfway(t, c, "g", 16, steps)
				if g, err := c.GroupInfo(testContext(t), "t", "g"); err != nil || g.Keyed != keyed {
					t.Errorf("got %+v, %v, want the group, with keys: %v", g, err, keyed)
				}
				seekAndRead(t, c, topic, "g", keyed)
				all, err := c.TopicInfo(testContext(t), "t")
				want := 1
				if keyed {
					want += partitions
				}
				if err != nil || all.Groups != want {
					t.Errorf("got %d consumers, %v, want %d", all.Groups, err, want)
				}
				if err := subscribe(t, topic, driver.SubscribeConfig{Group: "h", Keyed: keyed}).Close(testContext(t)); err != nil {
					t.Fatal(err)
				}
				nobodyListens(t, c, "h")
				seekHalfway(t, c, "h", 16, steps)
				if err := errors.Join(c.DeleteGroup(testContext(t), "t", "h"), c.DeleteGroup(testContext(t), "t", "g")); err != nil {
					t.Fatal(err)
				}
				if all, err = c.TopicInfo(testContext(t), "t"); err != nil || all.Groups != 0 {
					t.Errorf("got %d consumers, %v, after the groups were deleted", all.Groups, err)
				}
			})
		}
	}
}

// A member of a group in order by key that has all the messages it wants, and so waits
// for none, is a member.
func TestSeekWhileMembersAreBusy(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	topic := openTopic(t, c, "t", relaxed())
	member := subscribe(t, topic, driver.SubscribeConfig{Group: "g", Keyed: true, From: driver.FromStart, Window: 1})
	listening := func() int {
		t.Helper()
		g, err := c.GroupInfo(testContext(t), "t", "g")
		if err != nil {
			t.Fatal(err)
		}
		return g.Listening
	}
	for n := 0; listening() > 0; n += 4000 { // those on their way are more than the slots take
		if err := topic.Publish(testContext(t), manyKeys(n, 4000)); err != nil {
			t.Fatal(err)
		}
		publish(t, topic, numbered(0, 20)...)
	}
	if err := c.SeekGroup(testContext(t), "t", "g", 1); !errors.Is(err, ErrListening) {
		t.Errorf("got %v, want ErrListening", err)
	}
	if err := member.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.SeekGroup(testContext(t), "t", "g", 1); err != nil {
		t.Errorf("after the member has left: %v", err)
	}
}

// A group that refuses to be moved is not moved at all.
func TestSeekRefusedMovesNothing(t *testing.T) {
	c := startServer(t, withJetStream).open(t)
	topic := openTopic(t, c, "t", relaxed())
	member := subscribe(t, topic, driver.SubscribeConfig{Group: "g", Keyed: true, From: driver.FromStart, Window: 1})
	publish(t, topic, numbered(0, 20)...) // the consumer of those without a key has nobody waiting for it
	if err := member.Ack(testContext(t), receive(t, member, 1)); err != nil {
		t.Fatal(err)
	}
	place := func() (g GroupInfo) {
		t.Helper()
		g, err := c.GroupInfo(testContext(t), "t", "g")
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	eventually(t, "a message is done", func() bool { return place().Done == 1 })
	if err := c.SeekGroup(testContext(t), "t", "g", 15); !errors.Is(err, ErrListening) {
		t.Errorf("got %v, want ErrListening", err)
	}
	if got := place().Done; got >= 14 {
		t.Errorf("the group goes on after %d", got)
	}
}

// A member that was killed does not keep its group from being moved, although its lease
// has not ended and it is still in the roster.
func TestSeekAfterMemberDied(t *testing.T) {
	s := startServer(t, withJetStream)
	lease := Lease(time.Hour)
	mortal, err := Open(testContext(t), s.url(), lease)
	if err != nil {
		t.Fatal(err)
	}
	topic := openTopic(t, mortal, "t", relaxed())
	joinKeyed(t, topic)
	if err := topic.Publish(testContext(t), manyKeys(1, 20)); err != nil {
		t.Fatal(err)
	}
	mortal.nc.Close()
	c := s.open(t, lease)
	eventually(t, "the group is moved", func() bool {
		err := c.SeekGroup(testContext(t), "t", "g", 11)
		if err != nil && !errors.Is(err, ErrListening) {
			t.Fatal(err)
		}
		return err == nil
	})
	got := receive(t, joinKeyed(t, openTopic(t, c, "t", relaxed())), 10)
	if !slices.Equal(sequences(got), upTo(11, 20)) {
		t.Errorf("got %v, want 11 to 20", sequences(got))
	}
	closeConn(t, mortal)
}

// A member that the server believes to be there, because it was cut off without notice,
// keeps its group from being moved only until its lease has ended.
func TestSeekAfterMemberWasCutOff(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t, Lease(time.Second))
	if _, err := c.nc.SubscribeSync(rosterNews + ">"); err != nil { // as the member does
		t.Fatal(err)
	}
	mortal, err := Open(testContext(t), s.url(), Lease(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	joinKeyed(t, openTopic(t, mortal, "t", relaxed()))
	if err := c.SeekGroup(testContext(t), "t", "g", 1); !errors.Is(err, ErrListening) {
		t.Errorf("got %v, want ErrListening", err)
	}
	mortal.nc.Close()
	eventually(t, "the group is moved", func() bool {
		err := c.SeekGroup(testContext(t), "t", "g", 1)
		if err != nil && !errors.Is(err, ErrListening) {
			t.Fatal(err)
		}
		return err == nil
	})
	closeConn(t, mortal)
}

// A member whose connection is lost while its group is moved goes on at the new place.
func TestSeekWhileMemberIsDisconnected(t *testing.T) {
	l := openBrittle(t)
	ctx := testContext(t)
	member := joinKeyed(t, openTopic(t, l.conn, "t", relaxed()))
	c, err := Open(ctx, "nats://"+l.proxy.to, Lease(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(t, c)
	if err := openTopic(t, c, "t", relaxed()).Publish(ctx, manyKeys(1, 50)); err != nil {
		t.Fatal(err)
	}
	if err := member.Ack(ctx, receive(t, member, 50)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is done", func() bool {
		g, err := c.GroupInfo(ctx, "t", "g")
		return err == nil && g.InFlight == 0
	})
	l.cut(t)
	eventually(t, "the group is moved", func() bool {
		err := c.SeekGroup(ctx, "t", "g", 1)
		if err != nil && !errors.Is(err, ErrListening) {
			t.Fatal(err)
		}
		return err == nil
	})
	l.mend(t)
	if got := sequences(receive(t, member, 50)); !slices.Equal(got, upTo(1, 50)) {
		t.Errorf("got %v, want all messages again", got)
	}
}

// disturbed calls meanwhile before it moves a consumer, once left of them have been moved.
type disturbed struct {
	jetstream.JetStream
	left      int
	meanwhile func()
}

func (d *disturbed) ResetConsumerToSequence(ctx context.Context, stream, consumer string, seq uint64) (*jetstream.ConsumerResetResponse, error) {
	if d.left--; d.left == -1 {
		d.meanwhile()
	}
	return d.JetStream.ResetConsumerToSequence(ctx, stream, consumer, seq)
}

// A member that joins while its group is moved, and leaves before that is done, leaves
// behind that messages are done which then come again.
func TestSeekWhileMemberComesAndGoes(t *testing.T) {
	s := startServer(t, withJetStream)
	c := s.open(t)
	topic, elsewhere := openTopic(t, c, "t", relaxed()), openTopic(t, s.open(t), "t", relaxed())
	if err := joinKeyed(t, topic).Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := topic.Publish(testContext(t), manyKeys(1, 200)); err != nil {
		t.Fatal(err)
	}
	js := c.js
	c.js = &disturbed{js, 9, func() {
		member := joinKeyed(t, elsewhere)
		if err := errors.Join(member.Ack(testContext(t), receive(t, member, 200)), member.Close(testContext(t))); err != nil {
			t.Error(err)
		}
	}}
	if err := c.SeekGroup(testContext(t), "t", "g", 1); !errors.Is(err, ErrPartlyMoved) {
		t.Errorf("got %v, want ErrPartlyMoved", err)
	}
	c.js = js
	if err := c.SeekGroup(testContext(t), "t", "g", 1); err != nil {
		t.Fatal(err)
	}
	if got := sequences(receive(t, joinKeyed(t, topic), 200)); !slices.Equal(got, upTo(1, 200)) {
		t.Errorf("got %v, want all messages once", got)
	}
}
