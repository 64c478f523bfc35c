package natsdriver

import (
	"testing"

	"github.com/nats-io/nats.go"
)

type waiterFunc func()

func (f waiterFunc) acked(uint64, ack, error) { f() }

// Another client can send anything to the subject of the answers.
func TestOnlyAnswersAreTaken(t *testing.T) {
	const inbox = "_INBOX.x."
	told := false
	a := acks{waiting: map[uint64]waiter{7: waiterFunc(func() { told = true })}}
	for _, subject := range []string{inbox, inbox + "7", inbox + "hark", inbox + ackToken, inbox + ackToken + "7" + againMark, burstSuffix, burstStart, "7" + burstSettings + "1" + burstStart} {
		if a.receive(&nats.Msg{Subject: subject}); told {
			t.Fatalf("a message on %s was taken for an answer", subject)
		}
	}
	if a.receive(&nats.Msg{Subject: inbox + ackToken + "1" + againMark + "7"}); !told {
		t.Error("the answer was not taken")
	}
}
