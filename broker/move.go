package broker

import (
	"log/slog"

	"github.com/harkbus/hark/driver"
)

// moves are the messages of a batch that routes move, by their numbers.
type moves map[int]*move

// move is what becomes of a message in the topic that it comes from.
type move struct {
	by   []mover
	kept bool // it stays there: it would not be stored everywhere
}

// mover is a route that moves a message.
type mover struct {
	*route
	unstored string // a target of it that is not stored; empty for none
}

// add notes that a route moves a message, which needs all targets of the route to be
// stored.
func (all moves) add(number int, d *Decision) {
	m := all[number]
	if m == nil {
		m = &move{}
		all[number] = m
	}
	by := mover{route: d.route}
	if len(d.Unstored) > 0 {
		by.unstored = d.Unstored[0]
	}
	m.by = append(m.by, by)
	m.kept = m.kept || by.unstored != "" || len(d.Unresolved) > 0
}

// keep notes that a message stays where it is.
func (all moves) keep(number int) {
	if m := all[number]; m != nil {
		m.kept = true
	}
}

// remove removes messages from their topic that are stored elsewhere, and returns how
// many messages, from the first on, are done with.
func (in *reader) remove(ms []*driver.Received, all moves) int {
	for i, m := range ms {
		if all[i] == nil || all[i].kept {
			continue
		}
		if err := in.routing.conn.DeleteMessage(in.work, m.Topic, m.Seq); err != nil {
			if in.work.Err() != nil {
				return i
			}
			all.keep(i)
			in.routing.log.Error("a message was routed but could not be removed from its topic", "topic", m.Topic, "seq", m.Seq, "err", err)
		}
	}
	return len(ms)
}

// report says in the log, once for each route, which messages have stayed because a target
// is not stored: nothing else would tell why.
func (all moves) report(log *slog.Logger, ms []*driver.Received) {
	type stay struct {
		first    *driver.Received
		target   string
		messages int
	}
	stays := map[*route]*stay{}
	for i, received := range ms {
		m := all[i]
		if m == nil || !m.kept {
			continue
		}
		for _, by := range m.by {
			if by.unstored == "" {
				continue
			}
			if stays[by.route] == nil {
				stays[by.route] = &stay{first: received, target: by.unstored}
			}
			stays[by.route].messages++
		}
	}
	for r, s := range stays {
		log.Warn("messages were copied and not moved, because a target is not stored; declare the target under topics",
			"route", r.Name, "to", s.target, "topic", s.first.Topic, "first_seq", s.first.Seq, "messages", s.messages)
	}
}
