package natsdriver

import "slices"

// Access is what a user is to be allowed on a server that checks permissions.
type Access struct {
	// User is the name with which the user connects. The client must use _INBOX.
	// followed by this name as the prefix of its inboxes, as Open does, so that
	// nobody sees the replies to others.
	User string
	// Publish and Subscribe are topics and patterns. Sending a request takes
	// permission to publish, answering it permission to subscribe.
	Publish, Subscribe []string
	// Writes and Reads are the existing stored topics, and the patterns of stores,
	// to which the user may publish and subscribe; no others can be used as stored
	// topics. A user limited to some topics of a store can only publish to these.
	Writes, Reads []string
}

// InboxPrefix returns the prefix of the subjects for replies to a user.
func InboxPrefix(user string) string { return "_INBOX." + user }

// Subjects returns the subjects that the server must allow the client to publish to and
// to subscribe to. Replies to requests are not among them; servers can allow these for
// each request (allow_responses).
//
// These permissions are not enough to protect other users. A server checks neither the
// reply subject that a client gives nor the subject to which a consumer pushes. A user of
// a stored topic could give a subject of the JetStream API there, and so have, for
// example, a stream deleted. Something in front of the server must restrict both to the
// user's own inboxes (InboxPrefix), as the proxy of a hark broker does
// (docs/adr/0008-proxy.md).
//
// Some permissions include more than their names say:
//   - Who may read a stored topic may create and delete consumers of it, also those of
//     other groups.
//   - Who may subscribe to a stored topic may be a member of all its groups. Members of
//     groups that keep the order of keys agree on their work in a stream that
//     PrepareGroups creates. They can read there what the groups of all topics have
//     agreed on, but not the names of the topics, and change only that of their own.
//   - Who may publish to a topic may have it listed as a topic for dead letters, in what
//     PrepareDeadLetters creates.
//   - The pattern > stands for all subjects, also those of the server: who may publish to
//     it may do everything.
func (a *Access) Subjects() (publish, subscribe []string) {
	subscribe = []string{InboxPrefix(a.User) + ".>"}
	for _, topics := range a.Publish {
		publish = append(publish, topics, keyedSubjects(topics), storeSubjects(topics), cancelPrefix+topics, deadNotePrefix+topics)
	}
	for _, topics := range a.Subscribe {
		subscribe = append(subscribe, topics, cancelPrefix+topics)
		if isPattern(topics) { // for a single topic, stored messages come from its store
			subscribe = append(subscribe, keyedSubjects(topics), storeSubjects(topics))
		}
	}
	publish = append(publish, "$JS.API.INFO")
	for _, topics := range slices.Concat(a.Publish, a.Subscribe) {
		publish = append(publish, locatePrefix+topics)
	}
	for _, topic := range a.Writes {
		publish = append(publish, "$JS.API.STREAM.INFO."+nominalBacking(topic).stream)
	}
	for _, topic := range a.Reads {
		stream := nominalBacking(topic).stream
		publish = append(publish, "$JS.API.STREAM.INFO."+stream, "$JS.API.STREAM.MSG.GET."+stream, "$JS.ACK."+stream+".>")
		for _, call := range []string{"CREATE", "INFO", "MSG.NEXT", "DELETE", "RESET"} {
			publish = append(publish, "$JS.API.CONSUMER."+call+"."+stream+".>")
		}
		publish = append(publish, "$JS.API.CONSUMER.LIST."+stream, rosterSubjects(topic))
	}
	if len(a.Reads) > 0 { // groups that keep the order of keys
		// A topic's own news would end in *, by which a server means all that is below
		// it too, so that a.b could not be read beside a. Rosters can be read anyway.
		subscribe = append(subscribe, rosterNews+">")
		publish = append(publish, "$JS.API.STREAM.INFO."+groupsStream, "$JS.API.STREAM.MSG.GET."+groupsStream)
	}
	return publish, subscribe
}
