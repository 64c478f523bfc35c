package filter

import (
	"errors"
	"strings"
	"testing"
)

// TestStopsEarly checks that reading ends with the last field that is needed:
// nothing after it changes the answer. Damage before that point is an error.
func TestStopsEarly(t *testing.T) {
	const want = `data.a == 1 && data.b.c == "x"`
	early := mustCompile(t, want)
	exact := mustCompile(t, want, Exact())
	head := `{"a":1,"skipped":{"deep":[1,{"a":2}]},"b":{"c":"x"`
	for _, rest := range []string{"", `,`, `}`, `,"d":01`, `}}`, `,"d":"` + "\x00", "\xff\xff", strings.Repeat("[", 1<<20)} {
		m := newMessage([]byte(head + rest))
		if ok, err := early.Eval(m); !ok || err != nil {
			t.Errorf("followed by %.20q: got %v, %v; want a match", rest, ok, err)
		}
		if _, err := exact.Eval(m); rest != "}}" && err == nil {
			t.Errorf("followed by %.20q: Exact found nothing wrong", rest)
		}
	}
	for _, damaged := range []string{`{"a":1,"s":01,"b":{"c":"x"}}`, `{"a":1 "b":{"c":"x"}}`, `{"a":1,"s":{"x":tru},"b":{"c":"x"}}`, `{"a":1,"b":{"c":"x`} {
		if ok, err := early.Eval(newMessage([]byte(damaged))); ok || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, %v; want ErrMalformed", damaged, ok, err)
		}
	}
}

// TestInClosures checks that no part of these expressions runs on the
// interpreter.
func TestInClosures(t *testing.T) {
	for _, expr := range []string{
		`data.a == 1 && data.a != 2 && data.a < 3 && data.a <= 3 && data.a > 0 && data.a >= 0`,
		`!(data.a == 1) || data.b && (data.c ? data.d : data.e)`,
		`data.a + 1.0 > data.b - 2.0 * data.c / data.d && int(data.e) % 2 == 1 && -data.a < 0.0`,
		`data.a in [1, 2] && "x" in data.list && data.a in data.list && "x" in headers && "k" in data.map`,
		`has(data.a) && has(data.a.b.c) && has(headers.x)`,
		`size(data.s) == 1 && data.s.size() > 0`,
		`data.s.startsWith("a") && data.s.endsWith("b") && data.s.contains("c") && data.s.matches("^[a-c]+$") && matches(data.s, "x|y")`,
		`data.s.lowerAscii() == "a" && data.s.upperAscii() == "A" && data.s.trim() == "a"`,
		`data.list[0] == "a" && data.list[data.i] == "b" && data.map["k"] == 1 && data["odd name"].x == 1 && headers["x"] == "y"`,
		`data.list.exists(e, e.x == 1 && e.y in ["a", type]) && data.list.all(e, size(e) > 1)`,
		`timestamp(data.at) > time - duration("1h") && duration(data.took) < duration("5s")`,
		`time.getFullYear() == 2024 && time.getHours("Europe/Berlin") >= 8 && timestamp(data.at).getDayOfWeek() == 1`,
		`string(data.a) == "1" && double(data.s) == 1.5 && int(data.s) == 1 && bool(data.s)`,
		`data.a == null || id == "x" && source == "y" && type == "z" && subject == "s" && topic == "t" && key == "k"`,
	} {
		if parts := mustCompile(t, expr).Fallbacks(); len(parts) > 0 {
			t.Errorf("%s:\non the interpreter: %+v", expr, parts)
		}
	}
}
