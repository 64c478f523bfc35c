package store

import (
	"os"
	"path/filepath"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/harkbus/hark/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m, "github.com/nats-io/nats-server/") }

// open opens a directory and connects a client.
func open(t *testing.T, dir string) (*Store, nats.JetStreamContext) {
	t.Helper()
	s, err := Open(dir, natsserver.Options{DontListen: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	return s, js
}

// TestRepair leaves streams as a process does that is killed while it creates or
// reconfigures them.
func TestRepair(t *testing.T) {
	names := []string{"sound", "changed", "unsummed", "unnamed", "cut", "empty"}
	dir := t.TempDir()
	s, js := open(t, dir)
	for _, name := range names {
		if _, err := js.AddStream(&nats.StreamConfig{Name: name, Subjects: []string{name}}); err != nil {
			t.Fatal(err)
		}
		if name == "sound" || name == "changed" {
			if _, err := js.Publish(name, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	at := func(stream, file string) string { return filepath.Join(dir, StreamsDir, stream, file) }
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	write := func(path string, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(at("changed", metaSum), read(at("sound", metaSum)))
	cut := read(at("cut", metaName))
	write(at("cut", metaName), cut[:len(cut)/2])
	for _, path := range []string{at("unsummed", metaSum), at("unnamed", metaName), at("unnamed", metaSum), at("empty", metaName), at("empty", metaSum), filepath.Join(dir, ListName)} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(at("empty", "msgs")); err != nil {
		t.Fatal(err)
	}

	_, js = open(t, dir)
	for name, want := range map[string]uint64{"sound": 1, "changed": 1, "unsummed": 0} {
		if info, err := js.StreamInfo(name); err != nil || info.State.Msgs != want {
			t.Errorf("%s: got %+v, %v, want %d messages", name, info, err, want)
		}
	}
	for _, name := range []string{"unnamed", "cut", "empty"} { // the stream had not been created
		if _, err := js.AddStream(&nats.StreamConfig{Name: name, Subjects: []string{name}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRepairIsCareful checks that messages of an unknown stream are left alone.
func TestRepairIsCareful(t *testing.T) {
	dir := t.TempDir()
	s, js := open(t, dir)
	if _, err := js.AddStream(&nats.StreamConfig{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish("a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, ListName)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, StreamsDir, "a", metaName)); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(dir, natsserver.Options{DontListen: true}, nil); err == nil {
		t.Error("the stream was passed over")
		_ = s.Close()
	}
	if has, err := hasMessages(filepath.Join(dir, StreamsDir, "a")); !has || err != nil {
		t.Errorf("the messages are gone: %v", err)
	}
}
