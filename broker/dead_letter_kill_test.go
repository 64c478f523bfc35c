package broker

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/harkbus/hark/driver"
)

// replayChild turns the test binary into a broker that is killed during a replay.
// Its value is the directory and the step before which it stops.
const replayChild = "HARK_BROKER_REPLAY_CHILD"

const killConfig = "topics: [{name: jobs, dedup: 1h}, {name: jobs.dead}]"

// runReplayChild replays up to the step, reports that, and waits to be killed.
func runReplayChild(dir, step string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c, err := Load(Source{File: filepath.Join(dir, "hark.yaml"), Flags: map[string]string{"listen": "127.0.0.1:0", "http": "127.0.0.1:0", "data": filepath.Join(dir, "data")}})
	if err != nil {
		fail(err)
	}
	b, err := New(c, nil)
	if err != nil {
		fail(err)
	}
	b.onReplay = func(now string) {
		if now == step {
			fmt.Println("at", step)
			select {}
		}
	}
	if err := b.Start(context.Background()); err != nil {
		fail(err)
	}
	res, err := http.Post("http://"+b.HTTPAddr().String()+"/v1/admin/dead/jobs.dead/replay", "application/json", strings.NewReader(`{"all":true}`))
	if err != nil {
		fail(err)
	}
	defer res.Body.Close()
	_, _ = bufio.NewReader(res.Body).WriteTo(os.Stderr)
	fail(fmt.Errorf("replayed without the step %s", step))
}

// TestReplayIsKilled kills the broker with SIGKILL between the steps of a replay,
// again and again. Every message exists somewhere at all times, and in the end
// once, where it belongs.
func TestReplayIsKilled(t *testing.T) {
	const letters = 12
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.WriteFile(filepath.Join(dir, "hark.yaml"), []byte(killConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	b := start(t, configIn(t, data, killConfig))
	for i := range letters {
		bury(t, b, "jobs.dead", "jobs", i)
	}
	stop(t, b)
	for round, step := range []string{"publish", "delete", "done", "delete", "done", "delete"} {
		killAt(t, dir, step)
		b := start(t, configIn(t, data, killConfig))
		replayed, left := ids(t, b, "jobs"), ids(t, b, "jobs.dead")
		for i := range letters {
			id := fmt.Sprint("id-", i)
			if replayed[id] > 1 || replayed[id]+left[id] < 1 || left[id] > 1 {
				t.Errorf("round %d, killed before %s: %s is %d times in jobs and %d times in jobs.dead", round, step, id, replayed[id], left[id])
			}
		}
		if both := len(replayed) + len(left) - letters; step == "delete" && both != 1 || step != "delete" && both != 0 {
			t.Errorf("round %d, killed before %s: %d messages are in both topics", round, step, both)
		}
		stop(t, b)
	}
	b = start(t, configIn(t, data, killConfig))
	if _, s := newAPI(t, b, "").outcomes("replayDead", args{"topic": "jobs.dead"}, replayRequest{deadSelection: deadSelection{All: true}}); s.Failed+s.Skipped != 0 || s.Done == 0 {
		t.Errorf("got %+v", s)
	}
	replayed := ids(t, b, "jobs")
	for i := range letters {
		if n := replayed[fmt.Sprint("id-", i)]; n != 1 {
			t.Errorf("id-%d is there %d times, want once", i, n)
		}
	}
	if left := ids(t, b, "jobs.dead"); len(left) != 0 {
		t.Errorf("%v are left", left)
	}
}

// ids counts the IDs of the messages of a topic.
func ids(t *testing.T, b *Broker, topic string) map[string]int {
	t.Helper()
	all := map[string]int{}
	if _, err := b.scan(testContext(t), topic, 1, func(m *driver.Received) bool { all[m.ID]++; return true }); err != nil {
		t.Fatal(err)
	}
	return all
}

// killAt runs the child until it has reached a step, and kills it.
func killAt(t *testing.T, dir, step string) {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), os.Args[0])
	cmd.Env = append(os.Environ(), replayChild+"="+dir+" "+step)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = cmd.Process.Kill() // it may have exited
	_ = cmd.Wait()         // it was killed
	if err != nil || line != "at "+step+"\n" {
		t.Fatalf("got %q, %v: %s", line, err, errs.String())
	}
}
