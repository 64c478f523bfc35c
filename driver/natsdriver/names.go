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

// NATS lets the name of a stream or consumer be this long, in bytes.
const maxNATSName = 255

// topicStream is the name of the stream of a topic.
func topicStream(topic string) string { return streamName("topic", topic) }

// groupConsumer is the name of the consumer of a group.
func groupConsumer(group string) string { return assetName("", group) }

// streamName returns the name of the stream that keeps the thing of a kind, such
// as "topic", that is called name. Different things have different streams.
func streamName(kind, name string) string { return assetName("hark-"+kind+"-", name) }

// assetName returns prefix and name in the characters that NATS allows: = for a
// dot, and ~ and two hexadecimal digits for each other byte that cannot stand
// there. Not %, on which servers before 2.10 stumble in the names of consumers. It
// is injective in name.
func assetName(prefix, name string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			b.WriteByte('=')
		case c <= ' ' || c >= 0x7f || strings.IndexByte(`*>\/%~="<:|?`, c) >= 0: // some of them for the sake of file systems
			b.WriteByte('~')
			percent.WriteHex(&b, c)
		default:
			b.WriteByte(c)
		}
	}
	return cutName(b.String(), name)
}

// cutLength is how much of a name is left when it is cut.
const cutLength = 128

// cutName returns text if it is not too long for a name, and otherwise its beginning
// with the hash of what it stands for.
func cutName(text, whole string) string {
	if len(text) <= maxNATSName-8 { // others append to it
		return text
	}
	// ~~ is never part of a name that was not cut.
	sum := sha256.Sum256([]byte(whole))
	return text[:cutLength] + "~~" + hex.EncodeToString(sum[:])
}

// assetOf returns the name of which assetName made a text, without its prefix, if it
// was not cut; empty if it has made none like it.
func assetOf(text string) string {
	name, err := percent.Bytes(strings.NewReplacer("=", ".", "~", "%").Replace(text))
	if err != nil {
		return ""
	}
	return string(name)
}

// keyedPrefix is where messages with a key go that are to be stored, so that the
// partitions of a topic can be told apart: $HARK.k.TOPIC.PARTITION.
const keyedPrefix = "$HARK.k."

// keyedSubjects are the subjects of messages with a key of topics, or of those
// that match a pattern.
func keyedSubjects(topics string) string {
	if root, ok := strings.CutSuffix(topics, ">"); ok {
		return keyedPrefix + root + "*.>" // the topic has a token here, before that of the partition
	}
	return keyedPrefix + topics + ".*"
}

// partitions is into how many the messages with a key of a topic are divided, and
// so how many members of a group that keeps the order of keys can work on them at
// the same time.
const partitions = 16

// partitionOf is the partition of the messages with a key.
func partitionOf(key string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // a hash does not fail
	return int(h.Sum32() % partitions)
}

// partitionSubject is the subject of the messages of a partition.
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

// queueName is the name of the queue group of a group on core NATS.
func queueName(group string) string {
	for i := range len(group) {
		if group[i] <= ' ' || group[i] == '~' {
			return assetName("", group)
		}
	}
	return group
}

// inboxRoot returns how the subjects of all replies begin.
func inboxRoot(nc *nats.Conn) string {
	p := strings.TrimSuffix(nc.Opts.InboxPrefix, ".") + "."
	if p == "." || strings.HasPrefix(p, nats.InboxPrefix) {
		return nats.InboxPrefix // that of others, too
	}
	return p
}

// ackToken begins the last token of the subjects to which servers acknowledge
// that messages are stored. By it, or by the end of those of bursts, those who
// listen to the subject of a topic tell what is published there from requests.
const ackToken = "hark-"

// isAckSubject reports whether what has this reply subject is a message of a topic.
func isAckSubject(reply string) bool {
	if strings.HasSuffix(reply, burstEnd) {
		return false
	}
	return strings.HasSuffix(reply, burstSuffix) || strings.HasPrefix(reply[strings.LastIndexByte(reply, '.')+1:], ackToken)
}
