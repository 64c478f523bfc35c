package hark_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
)

// walkSeed, if set, is the only seed of the random walks. Set it to reproduce a
// failure.
const walkSeed = "HARK_SEED"

// walk runs step in synctest bubbles, each with a random source of its own: n
// times with the same seeds on every run, and n times with new ones. A failure
// prints its seed.
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
