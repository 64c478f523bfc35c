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

// Subjects returns the subjects to which a client has to be allowed to publish
// and to subscribe. Replies to requests are beside that; servers allow them by
// the requests.
//
// They are not enough: a server does not ask whether a client may have something sent to
// the reply subject that it names, or to the subject to which a consumer is to push. Who
// may use a stored topic can name a request of JetStream there, and have an empty answer
// taken for it, such as to delete a stream. So something has to stand before the server
// that holds both to the user's inboxes (InboxPrefix), as a broker of hark does
// (docs/adr/0008-proxy.md). To read a stored topic is to make and remove consumers of it,
// those of other groups too. Who may subscribe to a stored topic may be a member of its
// groups, those that keep the order of keys too: what their members have agreed upon is
// made by PrepareGroups, can be read and followed of all topics by who reads one, without
// their names, and be changed of these alone. Who may publish to a topic may have it
// listed among those for dead letters, for which PrepareDeadLetters makes what is needed.
// The pattern > is all subjects, those of the server too: who may publish to it may do
// everything.
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
		publish = append(publish, "$JS.API.STREAM.INFO."+nominalHome(topic).stream)
	}
	for _, topic := range a.Reads {
		stream := nominalHome(topic).stream
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
