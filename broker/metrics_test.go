package broker

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/harkbus/hark/driver"
)

// numbers returns the values at /metrics, by series.
func numbers(t *testing.T, a *api) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(string(a.want(http.StatusOK, "getMetrics", nil, nil, nil))) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && !strings.HasPrefix(line, "#") {
			all[name+"}"] = value
		} else if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			all[name] = value
		}
	}
	return all
}

func metricsScenario(t *testing.T, a *api) {
	c := dial(t, a.broker, "")
	a.want(http.StatusOK, "putTopic", args{"topic": "measured"}, nil, nil)
	a.want(http.StatusOK, "putTopic", args{"topic": "measured.dead"}, nil, nil)
	topic := storedTopic(t, c, "measured")
	sub, err := topic.Subscribe(testContext(t), driver.SubscribeConfig{Group: "g", From: driver.FromStart, Window: 3})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		publishTo(t, topic, keyed(i, "", "{}"))
	}
	receive(t, sub, 3)
	bury(t, a.broker, "measured.dead", "measured", 1)
	a.refused(http.StatusNotFound, "", "getTopic", args{"topic": "unknown"}, nil)
	got := numbers(t, a)
	for series, want := range map[string]string{
		`hark_topic_messages{topic="measured"}`:                       "5",
		`hark_topic_stored_messages_total{topic="measured"}`:          "5",
		`hark_group_redelivered_messages{group="g",topic="measured"}`: "0",
		`hark_dead_letters{topic="measured.dead"}`:                    "1",
		`hark_http_requests_total{code="404",endpoint="getTopic"}`:    "",
		`hark_route_matched_messages_total{route="2"}`:                "0",
		`hark_ready`:                         "1",
		`hark_metrics_truncated`:             "0",
		`hark_topic_bytes{topic="measured"}`: "",
		`hark_group_oldest_message_age_seconds{group="g",topic="measured"}`: "",
		`hark_connections`:              "",
		`process_resident_memory_bytes`: "",
		`go_goroutines`:                 "",
		`hark_http_request_duration_seconds_count{endpoint="getTopic"}`: "",
	} {
		if value, ok := got[series]; !ok || want != "" && value != want || want == "" && value == "0" {
			t.Errorf("%s: got %q, want %q", series, value, want)
		}
	}
	var waiting, hand int
	_, err1 := fmt.Sscan(got[`hark_group_waiting_messages{group="g",topic="measured"}`], &waiting)
	_, err2 := fmt.Sscan(got[`hark_group_in_flight_messages{group="g",topic="measured"}`], &hand)
	if err1 != nil || err2 != nil || waiting+hand != 5 {
		t.Errorf("got %d waiting and %d in flight, want 5 in all", waiting, hand)
	}
	if err := sub.Close(testContext(t)); err != nil {
		t.Error(err)
	}
	problems, err := testutil.GatherAndLint(a.broker.web.metrics.registry)
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, name := range []string{"measured", "measured.dead"} {
		a.want(http.StatusNoContent, "deleteTopic", args{"topic": name}, nil, nil)
	}
}

// TestMetricsAreBounded creates more topics, groups and routes than get series.
func TestMetricsAreBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("topics: [")
	for i := range 12 {
		fmt.Fprintf(&text, "{name: t%d.dead, durability: memory},", i)
	}
	text.WriteString("]\nroutes:\n")
	for i := range 12 {
		fmt.Fprintf(&text, "  - {from: t%d.dead, to: x%d}\n", i, i)
	}
	b := start(t, config(t, text.String()))
	for _, tt := range []struct {
		most, topics int
		truncated    string
	}{{5, 5, "1"}, {12, 12, "0"}, {maxLabelled, 12, "0"}} {
		b.web.metrics = newMetrics(b, tt.most)
		got := numbers(t, newAPI(t, b, ""))
		count := map[string]int{}
		for series := range got {
			name, _, _ := strings.Cut(series, "{")
			count[name]++
		}
		for _, name := range []string{"hark_topic_messages", "hark_group_waiting_messages", "hark_dead_letters", "hark_route_matched_messages_total"} {
			if count[name] != tt.topics {
				t.Errorf("at most %d: got %d of %s, want %d", tt.most, count[name], name, tt.topics)
			}
		}
		if got["hark_metrics_truncated"] != tt.truncated {
			t.Errorf("at most %d: got truncated %s, want %s", tt.most, got["hark_metrics_truncated"], tt.truncated)
		}
	}
}

// TestMetricsOfManyTopics creates more topics than get series: 150 where 100 do, and
// 100,000 with HARK_LONG=1. It logs how long lists and scrapes take.
func TestMetricsOfManyTopics(t *testing.T) {
	n, most := 150, 100
	if os.Getenv("HARK_LONG") != "" {
		n, most = 100_000, maxLabelled
	}
	b := start(t, config(t, "limits: {memory: 8GiB}"))
	b.web.metrics = newMetrics(b, most)
	began := time.Now()
	for i := range n {
		_, err := b.conn.OpenTopic(t.Context(), driver.TopicConfig{Name: fmt.Sprintf("many.%06d", i), Stored: &driver.StoredConfig{Durability: driver.DurableMemory}})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d topics made in %v", n, time.Since(began))
	a := newAPI(t, b, "")
	for what, given := range map[string]args{
		"the first page":       {},
		"a page in the middle": {"after": fmt.Sprintf("many.%06d", n/2)},
		"one by pattern":       {"pattern": fmt.Sprintf("many.%06d", n-1)},
	} {
		began := time.Now()
		var p page[topicView]
		a.want(http.StatusOK, "listTopics", given, nil, &p)
		t.Logf("%s: %d topics in %v", what, len(p.Items), time.Since(began))
		if want := given["after"]; len(p.Items) == 0 || want != "" && p.Items[0].Topic != fmt.Sprintf("many.%06d", n/2+1) {
			t.Errorf("%s: got %d topics", what, len(p.Items))
		}
	}
	began = time.Now()
	got := numbers(t, a)
	t.Logf("collected %d series in %v", len(got), time.Since(began))
	if count := strings.Count(fmt.Sprint(got), "hark_topic_messages{"); count != most || got["hark_metrics_truncated"] != "1" {
		t.Errorf("got numbers of %d topics, truncated %s, want %d and 1", count, got["hark_metrics_truncated"], most)
	}
}
