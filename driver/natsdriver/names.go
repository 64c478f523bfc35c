package natsdriver

import (
	"crypto/sha256"
	"encoding/hex"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/internal/percent"
)

// maxNATSName is how long NATS lets the name of a stream or consumer be, in bytes.
const maxNATSName = 255

// topicStream returns the name of the stream of a topic.
func topicStream(topic string) string { return streamName("topic", topic) }

// groupConsumer returns the name of the consumer of a group.
func groupConsumer(group string) string { return assetName("", group) }

// streamName returns the name of the stream for an object of a kind, such as
// "topic". Different objects have different streams.
func streamName(kind, name string) string { return assetName("hark-"+kind+"-", name) }

// assetName returns prefix and name in the characters that NATS allows: = for a
// dot, and ~ with two hexadecimal digits for each other byte that is not allowed.
// It does not use %, which servers before 2.10 mishandle in the names of consumers.
// It is injective in name.
func assetName(prefix, name string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			b.WriteByte('=')
		case c <= ' ' || c >= 0x7f || strings.IndexByte(`*>\/%~="<:|?`, c) >= 0: // some of them because of file systems
			b.WriteByte('~')
			percent.WriteHex(&b, c)
		default:
			b.WriteByte(c)
		}
	}
	return cutName(b.String(), name)
}

// cutLength is how many bytes of a name are kept when it is cut.
const cutLength = 128

// cutName returns text if it is short enough for a name, and otherwise its
// beginning with the hash of what it stands for.
func cutName(text, whole string) string {
	if len(text) <= maxNATSName-8 { // leaves room for suffixes
		return text
	}
	// A name that was not cut never contains ~~.
	sum := sha256.Sum256([]byte(whole))
	return text[:cutLength] + "~~" + hex.EncodeToString(sum[:])
}

// assetOf returns the name from which assetName made a text without a prefix, or ""
// if the text was cut or does not come from assetName.
func assetOf(text string) string {
	name, err := percent.Bytes(strings.NewReplacer("=", ".", "~", "%").Replace(text))
	if err != nil {
		return ""
	}
	return string(name)
}

// keyedPrefix begins the subjects of stored messages with a key, which tell the
// partitions of a topic apart: $HARK.k.TOPIC.PARTITION.
const keyedPrefix = "$HARK.k."

// keyedSubjects returns the subjects of the messages with a key on a topic, or on
// the topics that match a pattern.
func keyedSubjects(topics string) string {
	if root, ok := strings.CutSuffix(topics, ">"); ok {
		return keyedPrefix + root + "*.>" // the topic has one more token here, before the partition
	}
	return keyedPrefix + topics + ".*"
}

// partitions is into how many parts the messages with a key of a topic are divided,
// and so how many members of a group that keeps the order of keys can work in
// parallel.
const partitions = 16

// partitionOf returns the partition of messages with a given key.
func partitionOf(key string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // a hash never fails
	return int(h.Sum32() % partitions)
}

// partitionSubject returns the subject of the messages of a partition.
func partitionSubject(topic string, n int) string {
	return keyedPrefix + topic + "." + strconv.Itoa(n)
}

// keyedTopic returns the topic of a message with a key.
func keyedTopic(subject string) (string, bool) {
	rest, ok := strings.CutPrefix(subject, keyedPrefix)
	if !ok {
		return "", false
	}
	return rest[:max(strings.LastIndexByte(rest, '.'), 0)], true
}

// queueName returns the name of the queue group for a group on core NATS.
func queueName(group string) string {
	for i := range len(group) {
		if group[i] <= ' ' || group[i] == '~' {
			return assetName("", group)
		}
	}
	return group
}

// inboxRoot returns the prefix of all reply subjects.
func inboxRoot(nc *nats.Conn) string {
	p := strings.TrimSuffix(nc.Opts.InboxPrefix, ".") + "."
	if p == "." || strings.HasPrefix(p, nats.InboxPrefix) {
		return nats.InboxPrefix // covers the inboxes of others, too
	}
	return p
}

// ackToken begins the last token of the subjects on which servers acknowledge
// stored messages. By it, or by the end of the subjects of bursts, subscribers to
// the subject of a topic distinguish published messages from requests.
const ackToken = "hark-"

// againMark follows, in the reply subject of a message that is sent again, the one
// with which it was sent first. By it, subscribers to the subject recognise repeats.
const againMark = "~"

// firstReply returns the reply subject with which a message was sent first, and
// whether this is another time.
func firstReply(reply string) (first string, again bool) {
	i := strings.LastIndex(reply, againMark)
	if i <= strings.LastIndexByte(reply, '.') { // there is none, or it is part of the prefix of inboxes
		return reply, false
	}
	return reply[:i], true
}

// isAckSubject reports whether a message with this reply subject was published to a
// topic.
func isAckSubject(reply string) bool {
	if strings.HasSuffix(reply, burstEnd) {
		return false
	}
	return strings.HasSuffix(reply, burstSuffix) || strings.HasPrefix(lastToken(reply), ackToken)
}

// lastToken returns what follows the last dot of a subject.
func lastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }
