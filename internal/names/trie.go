package names

import "strings"

// Trie holds values by pattern and finds those whose pattern matches a name,
// at a cost that grows with the name's tokens and the matches, not with the
// patterns. The zero Trie is empty. It is not safe for concurrent use.
type Trie[V comparable] struct{ root branch[V] }

type branch[V comparable] struct {
	next map[string]*branch[V] // by token, including "*"
	here []V                   // patterns that end here
	rest []V                   // patterns that end here with ">"
}

// Add files v under pattern.
func (t *Trie[V]) Add(pattern string, v V) {
	b := &t.root
	for token := range strings.SplitSeq(pattern, ".") {
		if token == ">" {
			b.rest = append(b.rest, v)
			return
		}
		if b.next == nil {
			b.next = map[string]*branch[V]{}
		}
		if b.next[token] == nil {
			b.next[token] = &branch[V]{}
		}
		b = b.next[token]
	}
	b.here = append(b.here, v)
}

// Remove takes v out from under pattern.
func (t *Trie[V]) Remove(pattern string, v V) { t.root.remove(pattern, v) }

func (b *branch[V]) remove(pattern string, v V) {
	token, rest, more := strings.Cut(pattern, ".")
	if token == ">" {
		b.rest = without(b.rest, v)
		return
	}
	next := b.next[token]
	if next == nil {
		return
	}
	if more {
		next.remove(rest, v)
	} else {
		next.here = without(next.here, v)
	}
	if len(next.next) == 0 && len(next.here) == 0 && len(next.rest) == 0 {
		delete(b.next, token)
	}
}

func without[V comparable](vs []V, v V) []V {
	for i, w := range vs {
		if w == v {
			return append(vs[:i:i], vs[i+1:]...)
		}
	}
	return vs
}

// Match calls f for each value whose pattern matches name.
func (t *Trie[V]) Match(name string, f func(V)) { t.root.match(name, f) }

func (b *branch[V]) match(name string, f func(V)) {
	for _, v := range b.rest {
		f(v)
	}
	token, rest, more := strings.Cut(name, ".")
	for _, next := range [...]*branch[V]{b.next[token], b.next["*"]} {
		switch {
		case next == nil:
		case more:
			next.match(rest, f)
		default:
			for _, v := range next.here {
				f(v)
			}
		}
	}
}
