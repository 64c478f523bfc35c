package filter

// firstMembers returns valid JSON text without the members that repeat a name,
// so that decoding it finds the first of each. It returns text that repeats no
// name unchanged.
func firstMembers(text []byte) []byte {
	s := scanner{b: text, maxDepth: len(text)}
	s.skipSpace()
	cut := cutter{scanner: s}
	cut.value()
	if cut.out == nil {
		return text
	}
	return append(cut.out, text[cut.done:]...)
}

type cutter struct {
	scanner
	out  []byte
	done int // text up to here has been copied to out or left out
}

func (c *cutter) value() {
	switch c.b[c.i] {
	case '{':
		c.i++
		c.depth++
		c.object()
	case '[':
		c.i++
		c.depth++
		for first := true; ; first = false {
			if more, ok := c.nextElement(first); !ok || !more {
				return
			}
			c.value()
		}
	default:
		c.skipValue()
	}
}

func (c *cutter) object() {
	var names []string
	var many map[string]struct{}
	for first := true; ; first = false {
		// Removing a member also removes the comma before it. There always is
		// one, as the first member repeats nothing.
		from := c.i
		start, end, flags, more, ok := c.key(first)
		if !ok || !more {
			return
		}
		name := c.text(start, end, flags)
		again := false
		if many == nil {
			for _, n := range names {
				again = again || n == name
			}
		} else {
			_, again = many[name]
		}
		if again {
			c.skipValue()
			c.out = append(c.out, c.b[c.done:from]...)
			c.done = c.i
			continue
		}
		if names = append(names, name); many != nil {
			many[name] = struct{}{}
		} else if len(names) == fewKeys {
			many = make(map[string]struct{})
			for _, n := range names {
				many[n] = struct{}{}
			}
		}
		c.value()
	}
}
