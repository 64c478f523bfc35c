package hark_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
)

// walkSeed, if set, is the only seed of the random walks: that of a failure.
const walkSeed = "HARK_SEED"

// walk runs step in synctest bubbles, each with a source of randomness of its
// own: n with the same seeds every time, and as many with fresh ones. What
// fails says its seed.
func walk(t *testing.T, n int, step func(t *testing.T, rnd *rand.Rand)) {
	var seeds []uint64
	if text := os.Getenv(walkSeed); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", walkSeed, err)
		}
		seeds = []uint64{seed}
	} else {
		if testing.Short() {
			n = max(1, n/10)
		}
		for i := range n {
			seeds = append(seeds, uint64(i), rand.Uint64())
		}
	}
	for _, seed := range seeds {
		walkOne(t, seed, step)
		if t.Failed() {
			return
		}
	}
}

func walkOne(t *testing.T, seed uint64, step func(t *testing.T, rnd *rand.Rand)) {
	defer func() { // a failure in a bubble ends the test
		if t.Failed() {
			t.Logf("again: %s=%d go test -run '^%s$' .", walkSeed, seed, t.Name())
		}
	}()
	synctest.Test(t, func(t *testing.T) { step(t, rand.New(rand.NewPCG(seed, 0))) })
}
