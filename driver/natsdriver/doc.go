// Package natsdriver lets hark run over NATS: ephemeral topics, requests and
// signals on its core, stored topics and latches on JetStream. Importing it, if only for its effect,
// makes hark.Open understand nats:, tls: and hark: URLs.
//
// # URLs
//
//	nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT][,HOST[:PORT]…][?PARAMETER=VALUE&…]
//
// tls: is nats: with TLS required. hark: is for a hark broker, and means
// sync=always and port 7422, where none is given, instead of 4222; a server that
// does not run in a broker needs nats:. The parameters:
//
//	creds     file with a JWT and its seed (.creds)
//	nkey      file with the seed of an nkey
//	token     token, instead of before the host
//	tlsca     file with the certificates of authorities to trust (PEM)
//	tlscert   file with the client's certificate (PEM), with tlskey
//	tlskey    file with its key
//	tlsfirst  true: begin with the TLS handshake, before the server speaks
//	name      name of the connection, for the server's monitoring
//	domain    JetStream domain, for servers behind a leaf node
//	lease     how long a message of a group may be in flight, such as 30s, the
//	          default; the same for all members of the group
//	replicas  how many servers of a cluster keep each stored topic; 1 by default
//	sync      always: the servers run with sync_interval: always, so that a
//	          stored message is on disk (durability Strict)
//
// A client with a user name has the inbox prefix _INBOX.USER, so that a server
// can keep the replies of users apart; see Access.
//
// # What is on the wire
//
// The subject of an ephemeral topic is its name, a group of it is a queue
// group, and patterns are the same, so every NATS client can take part. A
// message is a CloudEvent in the binary mode of the NATS binding: the headers
// ce-specversion, ce-id, ce-source, ce-type (the name of the topic), ce-time,
// ce-datacontenttype and ce-partitionkey (the key), with values percent-encoded
// as the binding asks for. Headers of the message that begin with ce- are
// attributes of the event and come after these. Messages of others are taken as
// they are: without an envelope, with one in binary mode, or in structured mode
// (content-type application/cloudevents+json).
//
// Other headers of a message travel as they are. hark's own begin with hark-:
//
//	hark-expires  when the message is worth nothing any more, RFC 3339
//	hark-key      the key, of a message without an envelope
//	hark-encoded  names of headers whose values are percent-encoded, because
//	              NATS would not carry them unchanged; separated by spaces
//
// A request is one of NATS: it goes to the subject of its name, where the
// responders are the queue group hark, and so every client can ask and answer.
// What is published without a reply subject is no request, and what has one is
// no message of a topic, except for acknowledgements of streams. A requester that
// no longer waits publishes the last token of its reply subject to $HARK.cancel. and
// the name. Requests and answers are no events: they have their data, their headers,
// and of the envelope ce-datacontenttype only, unless that is application/octet-stream.
//
// # Streams
//
// A stored topic is a stream named hark-topic- and the topic with = for each
// dot (for each byte that NATS does not allow in names of streams, and for =, %
// and ~, there is ~ and two hexadecimal digits; a name that gets too long ends in
// its SHA-256). It keeps what
// is published to the name of the topic, by whomever. Without a maximum age it has
// one of a hundred years, which saves the server work. The metadata of the stream
// say which topic it is and with which durability it was made. A group is a
// durable consumer, with its name written in the same way.
//
// Messages with a key are published to $HARK.k.TOPIC.PARTITION instead, so that
// groups can keep the order of keys: such a group has a durable consumer for each
// of the 16 partitions too, named after it with ~k and the partition, and in the
// stream hark-groups says which member has which. Messages that are to be delivered later
// wait in the stream hark-due, which the streams of topics have as a source.
//
// A store is a stream named hark-store- and a pattern, which keeps the topics that match
// it under $HARK.s.PARTITION.TOPIC, with - for the partition of messages without a key.
// What is published to the names of the topics is moved there when it is stored. Its
// groups are consumers named after their topic with ~g and the group. A client that may
// not see the names of streams asks a broker at $HARK.where.TOPIC.
//
// The stream of a topic for dead letters has the subject $HARK.dead. and the topic too,
// to which nobody publishes, so that such topics are found among others. The name of one
// that is in a store, or was made for something else, is a message of the stream hark-dead,
// to which $HARK.d. and the topic is published when a subscription names it.
//
// # Signals and latches
//
// Each connection that has a notifier has an ID and subscribes to $HARK.signal,
// where it says hello, notify and bye, and to $HARK.signal.ID.*, where others
// answer it, with their IDs as the last token. Who comes asks for the list of the
// others at $HARK.roll. Connections through a client with the option NoEcho
// cannot listen.
//
// A latch is the last message at $HARK.latch. and its name, set or clear, in the
// stream hark-latches, which is made for the first who listens. What is cleared
// expires after an hour, where servers can do that (2.11).
package natsdriver
