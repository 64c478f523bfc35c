package main

import "testing"

// TestCandidatesAgree constructs the candidates of every workload. This checks
// that they give the same answers, so that the timings compare like with like.
func TestCandidatesAgree(t *testing.T) {
	hooks := hookJob
	hooks.docs = payloads("../../testdata/github-webhooks.jsonl")
	for _, j := range []job{orderJob, hooks} {
		if n := j.want(); n == 0 {
			t.Errorf("%s: nothing matches, so that the candidates agree too easily", j.name)
		}
		j.candidates()
	}
	hundred()
	cs, matches := curve(100)
	if matches == 0 {
		t.Error("no filter of the mix matches")
	}
	var want int
	for i, c := range cs[1:] {
		matched = 0
		c.run()
		if i == 0 {
			want = matched
		} else if matched != want {
			t.Errorf("%s: %d matches, want %d", c.name, matched, want)
		}
	}
}
