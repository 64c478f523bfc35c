package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
)

// pruners keep only the newest messages of each key, for topics configured that
// way.
type pruners struct {
	conn *natsdriver.Conn
	log  *slog.Logger

	mu  sync.Mutex // guards all
	all map[string]*pruner
}

// pruner reads a topic from the start and removes messages of a key once newer ones
// have come. It remembers where the newest messages of each key are.
type pruner struct {
	topic  string // or the pattern of a store
	rule   keepRule
	sub    driver.Subscription
	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned
}

// keepRule says how many messages stay; 0 means all.
type keepRule struct{ perKey, perTopic int }

func (t *TopicConfig) keepRule() keepRule { return keepRule{int(t.PerKey), int(t.PerTopic)} }

func newPruners(conn *natsdriver.Conn, log *slog.Logger) *pruners {
	return &pruners{conn: conn, log: log.With("part", "per_key"), all: map[string]*pruner{}}
}

// change prepares what a configuration needs. The caller must call one of the
// functions it returns: finish starts removing what the configuration does not
// keep, undo leaves everything as it is.
func (ps *pruners) change(ctx context.Context, c *Config) (finish func(), undo func() error, err error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	next, fresh := map[string]*pruner{}, []*pruner{}
	undo = func() (err error) {
		for _, p := range fresh {
			err = errors.Join(err, p.sub.Close(ctx))
		}
		return err
	}
	for _, t := range c.Topics {
		if t.keepRule() == (keepRule{}) {
			continue
		}
		if p := ps.all[t.Name]; p != nil && p.rule == t.keepRule() {
			next[t.Name] = p
			continue
		}
		p, err := ps.open(ctx, &t)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("topic %s: %w", t.Name, err), undo())
		}
		next[t.Name] = p
		fresh = append(fresh, p)
	}
	return func() {
		ps.mu.Lock()
		defer ps.mu.Unlock()
		for name, p := range ps.all {
			if next[name] != p {
				p.stop(ctx)
			}
		}
		ps.all = next
		for _, p := range fresh {
			run, cancel := context.WithCancel(context.Background())
			p.cancel = cancel
			go p.run(run, ps.conn, ps.log.With("topic", p.topic))
		}
	}, undo, nil
}

func (ps *pruners) open(ctx context.Context, t *TopicConfig) (*pruner, error) {
	topic, err := openDeclared(ctx, ps.conn, t.Name)
	if err != nil {
		return nil, err
	}
	sub, err := topic.Subscribe(ctx, driver.SubscribeConfig{From: driver.FromStart, Window: storedBatch})
	return &pruner{topic: t.Name, rule: t.keepRule(), sub: sub, done: make(chan struct{})}, err
}

// stop stops all pruners.
func (ps *pruners) stop(ctx context.Context) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.all {
		p.stop(ctx)
	}
	clear(ps.all)
}

func (p *pruner) stop(ctx context.Context) {
	p.cancel()
	_ = p.sub.Close(ctx) // a subscription without a group leaves nothing behind
	<-p.done
}

func (p *pruner) run(ctx context.Context, conn *natsdriver.Conn, log *slog.Logger) {
	defer close(p.done)
	kept, last := newKept(p.rule), uint64(0)
	for {
		ms, err := p.sub.Receive(ctx, storedBatch)
		switch {
		case err == nil:
		case errors.Is(err, driver.ErrEnded), errors.Is(err, driver.ErrClosed), ctx.Err() != nil:
			return
		default:
			log.Error("messages cannot be read, so old messages of keys are not removed", "err", err, "retry_in", maxBackoff)
			if !sleep(ctx, maxBackoff) {
				return
			}
			continue
		}
		for _, m := range ms {
			if m.Seq <= last { // the topic was created again, and counts from 1
				kept = newKept(p.rule)
			}
			last = m.Seq
			for _, seq := range kept.add(m) {
				if !p.remove(ctx, conn, log, seq) {
					return
				}
			}
		}
		if kept.full() {
			info, err := conn.TopicInfo(ctx, p.topic)
			if err != nil {
				log.Warn("it is not known which messages have been removed by other limits", "err", err) // next time
				continue
			}
			kept.forget(info.First)
		}
	}
}

// remove removes a message, however long that takes. It returns false if the pruner
// is stopped.
func (p *pruner) remove(ctx context.Context, conn *natsdriver.Conn, log *slog.Logger, seq uint64) bool {
	for pause := minBackoff; ; pause = min(2*pause, maxBackoff) {
		err := conn.DeleteMessage(ctx, p.topic, seq)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		log.Warn("an old message of a key could not be removed", "seq", seq, "err", err, "retry_in", pause)
		if !sleep(ctx, pause) {
			return false
		}
	}
}

// kept holds the sequences of the messages that stay.
type kept struct {
	rule    keepRule
	byKey   map[keyOf][]uint64
	byTopic map[string][]uint64
	keyed   map[string]bool // topics that have had messages with a key
	most    int             // how many keys and topics there may be before it is worth while to look which are gone
}

type keyOf struct{ topic, key string }

func newKept(rule keepRule) *kept {
	return &kept{rule, map[keyOf][]uint64{}, map[string][]uint64{}, map[string]bool{}, leastKept}
}

// leastKept is the least kept.most.
const leastKept = 4096

// full reports whether there are many keys and topics, perhaps of messages that are gone.
func (k *kept) full() bool { return len(k.byKey)+len(k.byTopic) > k.most }

// forget forgets the messages before a sequence: other limits have removed them.
func (k *kept) forget(first uint64) {
	for of, seqs := range k.byKey {
		if k.byKey[of] = from(seqs, first); len(k.byKey[of]) == 0 {
			delete(k.byKey, of)
		}
	}
	for topic, seqs := range k.byTopic {
		if k.byTopic[topic] = from(seqs, first); len(k.byTopic[topic]) == 0 {
			delete(k.byTopic, topic)
			delete(k.keyed, topic)
		}
	}
	k.most = max(2*(len(k.byKey)+len(k.byTopic)), leastKept)
}

// from returns the part of sorted sequences that begins with first.
func from(seqs []uint64, first uint64) []uint64 {
	i, _ := slices.BinarySearch(seqs, first)
	return seqs[i:]
}

// add adds a message, and returns the sequences of those to remove.
func (k *kept) add(m *driver.Received) (gone []uint64) {
	if k.rule.perKey > 0 && m.HasKey {
		of := keyOf{m.Topic, m.Key}
		seqs := append(k.byKey[of], m.Seq)
		over := max(len(seqs)-k.rule.perKey, 0)
		gone = append(gone, seqs[:over]...)
		k.byKey[of] = seqs[over:]
	}
	if k.rule.perTopic == 0 {
		return gone
	}
	seqs := append(k.byTopic[m.Topic], m.Seq)
	over := max(len(seqs)-k.rule.perTopic, 0)
	if k.keyed[m.Topic] = k.keyed[m.Topic] || m.HasKey; k.keyed[m.Topic] {
		gone = append(gone, seqs[:over]...) // otherwise the server has removed them
	}
	k.byTopic[m.Topic] = seqs[over:]
	return gone
}
