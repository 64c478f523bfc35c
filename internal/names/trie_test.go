package names

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestTrie compares the trie with Match under random additions and removals.
func TestTrie(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	random := func(tokens []string) string {
		var s strings.Builder
		s.WriteString(tokens[rng.IntN(len(tokens))])
		for range rng.IntN(4) {
			s.WriteString("." + tokens[rng.IntN(len(tokens))])
		}
		return s.String()
	}
	var trie Trie[int]
	patterns := map[int]string{}
	for i := range 3000 {
		if rng.IntN(3) == 0 {
			for id, p := range patterns {
				trie.Remove(p, id)
				delete(patterns, id)
				break
			}
		} else if p := random([]string{"a", "b", "c", "*"}); rng.IntN(4) == 0 {
			patterns[i] = p + ".>"
			trie.Add(p+".>", i)
		} else {
			patterns[i] = p
			trie.Add(p, i)
		}
		name := random([]string{"a", "b", "c"})
		var got, want []int
		trie.Match(name, func(id int) { got = append(got, id) })
		for id, p := range patterns {
			if Match(p, name) {
				want = append(want, id)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("matches of %s: got %v, want %v", name, got, want)
		}
	}
	for id, p := range patterns {
		trie.Remove(p, id)
	}
	if len(trie.root.next) != 0 || len(trie.root.rest) != 0 {
		t.Errorf("an emptied trie keeps branches: %v", trie.root)
	}
}

func BenchmarkTrieMatch(b *testing.B) {
	var trie Trie[int]
	for i := range 10_000 {
		trie.Add(fmt.Sprintf("area%d.*.item%d", i%100, i), i)
	}
	n := 0
	for b.Loop() {
		trie.Match("area7.x.item107", func(int) { n++ })
	}
	if n != b.N {
		b.Fatalf("got %d matches, want %d", n, b.N)
	}
}
