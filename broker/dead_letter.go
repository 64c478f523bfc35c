package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/harkbus/hark"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/filter"
)

// The headers of a dead letter, and of messages made from it.
const (
	// failureHeader holds the record of the failure, as JSON.
	failureHeader = "hark-failure"
	// replayedHeader counts how often a message was replayed. If the message fails
	// again, the count comes back with it.
	replayedHeader = "hark-replayed"
	// replayOfHeader names the dead letter that a message was: topic/sequence.
	replayOfHeader = "hark-replay-of"
	// editedHeader holds the sequence of the dead letter of which this is an edited
	// copy.
	editedHeader = "hark-edited-from"
)

// deadLetter is a message that its subscription has given up on.
type deadLetter struct {
	*driver.Received
	failure *hark.Failure // nil if the reason is not recorded
}

func readDead(m *driver.Received) *deadLetter {
	d := &deadLetter{Received: m}
	f := &hark.Failure{}
	if json.Unmarshal([]byte(m.Headers[failureHeader]), f) == nil {
		d.failure = f
	}
	return d
}

// from returns the topic on which the message was published, or "" if it is not
// recorded.
func (d *deadLetter) from() string {
	if d.failure == nil {
		return ""
	}
	return d.failure.Topic
}

// replays returns how often the message was replayed before it failed again.
func (d *deadLetter) replays() int {
	n, _ := strconv.Atoi(d.Headers[replayedHeader]) // an invalid number counts as none
	return max(n, 0)
}

// varying matches what differs between occurrences of the same error.
var varying = regexp.MustCompile(`"[^"]*"|'[^']*'|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|0x[0-9a-fA-F]+|\d+(?:\.\d+)*`)

// What a list says of a dead letter is cut, because anybody who may publish to the topic
// can put anything into the record: maxReason and maxSubscription are lengths in bytes,
// and maxNamed is how many subscriptions are named for a group of errors. Of the reason
// maxMasked bytes are looked at for what varies.
const (
	maxMasked       = 8192
	maxReason       = 1024
	maxSubscription = 256
	maxNamed        = 100
)

// cut returns the beginning of a text, at most so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

// reason returns the error without its varying parts, and a short name for it. Dead
// letters with the same name form a group.
func (d *deadLetter) reason() (text, name string) {
	text = "(nothing says why)"
	if d.failure != nil {
		text = cut(varying.ReplaceAllStringFunc(cut(d.failure.Reason, maxMasked), func(s string) string {
			if s[0] == '"' || s[0] == '\'' {
				return string(s[0]) + "…" + string(s[0])
			}
			return "#"
		}), maxReason)
	}
	sum := sha256.Sum256([]byte(text))
	return text, hex.EncodeToString(sum[:4])
}

// deadEvent is a dead letter as filters see it: the original message, on its topic,
// with the headers reason, subscription and attempts unless it already has headers
// of these names.
type deadEvent struct {
	Event
	letter *deadLetter
}

// Topic implements filter.Envelope.
func (e *deadEvent) Topic() string {
	if from := e.letter.from(); from != "" {
		return from
	}
	return e.Event.Topic()
}

// Header implements filter.Envelope.
func (e *deadEvent) Header(name string) (string, bool) {
	if s, ok := e.Event.Header(name); ok || e.letter.failure == nil {
		return s, ok
	}
	switch f := e.letter.failure; name {
	case "reason":
		return f.Reason, true
	case "subscription":
		return f.Subscription, true
	case "attempts":
		return strconv.Itoa(f.Attempts), true
	}
	return "", false
}

// deadSelection selects dead letters of a topic. They must match all of its
// members.
type deadSelection struct {
	Seqs  []uint64 `json:"seqs,omitempty" doc:"select the dead letters with these sequences"`
	Error string   `json:"error,omitempty" doc:"select the dead letters of this group of errors, as listDeadErrors names it in error"`
	Where string   `json:"where,omitempty" doc:"select the dead letters whose original message matches this filter; headers.reason, headers.subscription and headers.attempts are those of the failure"`
	All   bool     `json:"all,omitempty" doc:"select all dead letters; required if no other member selects any"`
	Limit uint64   `json:"limit,omitempty" doc:"select at most this many, the oldest first; 0 selects all"`
}

// maxSelected is how many dead letters one call can handle.
const maxSelected = 1_000_000

// check refuses an ambiguous selection. It sorts the sequences.
func (s *deadSelection) check() (*filter.Filter, error) {
	if len(s.Seqs) == 0 && s.Error == "" && s.Where == "" && !s.All {
		return nil, refused(http.StatusBadRequest, "the request does not select dead letters").but("give seqs, error or where; or all")
	}
	f, err := compileFilter(s.Where)
	if err != nil {
		return nil, refused(http.StatusBadRequest, "where: %s", err)
	}
	slices.Sort(s.Seqs)
	return f, nil
}

// selectDead returns the sequences of the selected dead letters, in order. A
// selection by sequences alone returns them whether or not they exist.
func (b *Broker) selectDead(ctx context.Context, topic string, s *deadSelection, where *filter.Filter) (seqs []uint64, err error) {
	most := s.Limit
	if most == 0 || most > maxSelected {
		most = maxSelected
	}
	from := uint64(1)
	if len(s.Seqs) > 0 {
		if s.Error == "" && where == nil {
			seqs = slices.Compact(s.Seqs)
			return seqs[:min(uint64(len(seqs)), most)], nil
		}
		from = s.Seqs[0]
	}
	_, err = b.scan(ctx, topic, from, func(m *driver.Received) bool {
		if s.matches(readDead(m), where) {
			seqs = append(seqs, m.Seq)
		}
		return uint64(len(seqs)) < most
	})
	return seqs, err
}

func (s *deadSelection) matches(d *deadLetter, where *filter.Filter) bool {
	if len(s.Seqs) > 0 {
		if _, among := slices.BinarySearch(s.Seqs, d.Seq); !among {
			return false
		}
	}
	if s.Error != "" {
		if _, name := d.reason(); name != s.Error {
			return false
		}
	}
	return where == nil || where.Match(&deadEvent{Event{d.Received}, d})
}

// editedDead says what to change in a copy of a dead letter.
type editedDead struct {
	Data        json.RawMessage    `json:"data,omitempty" doc:"the new data as JSON; unchanged if missing"`
	Base64      []byte             `json:"data_base64,omitempty" doc:"the new data as base64, if it is not JSON"`
	ContentType string             `json:"datacontenttype,omitempty" doc:"the new media type; unchanged if missing"`
	Key         *string            `json:"key,omitempty" doc:"the new key; unchanged if missing"`
	Headers     map[string]*string `json:"headers,omitempty" doc:"headers to change; null removes a header"`
	Replace     bool               `json:"replace,omitempty" doc:"whether to remove the dead letter when its copy is stored"`
}

// copyDead returns an edited copy of a dead letter, with the record of its failure.
func (e *editedDead) copyDead(d *deadLetter) (*driver.Message, error) {
	m := d.Message
	m.Time = time.Now()
	m.Headers = maps.Clone(m.Headers)
	if m.Headers == nil {
		m.Headers = map[string]string{}
	}
	switch {
	case e.Data != nil && e.Base64 != nil:
		return nil, refused(http.StatusBadRequest, "data and data_base64: give one of them")
	case e.Data != nil:
		m.Data = e.Data
	case e.Base64 != nil:
		m.Data = e.Base64
	}
	if e.ContentType != "" {
		m.ContentType = e.ContentType
	}
	if e.Key != nil {
		m.Key, m.HasKey = *e.Key, *e.Key != ""
	}
	for name, value := range e.Headers {
		switch name {
		case failureHeader, replayedHeader, replayOfHeader, editedHeader:
			return nil, refused(http.StatusBadRequest, "header %s records where the message comes from and cannot be changed", name)
		case "":
			return nil, refused(http.StatusBadRequest, "a header has no name")
		}
		if delete(m.Headers, name); value != nil {
			m.Headers[name] = *value
		}
	}
	m.Headers[editedHeader] = uintText(d.Seq)
	return &m, nil
}

// editDead stores an edited copy of a dead letter on its topic, and returns it.
func (b *Broker) editDead(ctx context.Context, topic string, seq uint64, e *editedDead) (*deadLetter, error) {
	m, err := b.conn.ReadMessage(ctx, topic, seq)
	if err != nil {
		return nil, err
	}
	edited, err := e.copyDead(readDead(m))
	if err != nil {
		return nil, err
	}
	info, err := b.conn.TopicInfo(ctx, topic)
	if err != nil {
		return nil, err
	}
	t, err := b.conn.OpenTopic(ctx, driver.TopicConfig{Name: topic, Stored: &driver.StoredConfig{Existing: true}})
	if err != nil {
		return nil, err
	}
	if err := t.Publish(ctx, []*driver.Message{edited}); err != nil {
		return nil, err
	}
	var stored *deadLetter
	if _, err := b.scan(ctx, topic, info.Last+1, func(m *driver.Received) bool {
		if m.Headers[editedHeader] == edited.Headers[editedHeader] && m.Time.Equal(edited.Time) {
			stored = readDead(m)
		}
		return stored == nil
	}); err != nil {
		return nil, err
	}
	if stored == nil {
		return nil, fmt.Errorf("the edited copy of %d was stored and is already gone; the limits of topic %s may be too small", seq, topic)
	}
	if e.Replace {
		return stored, b.conn.DeleteMessage(ctx, topic, seq)
	}
	return stored, nil
}
