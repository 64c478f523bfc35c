package filter

import (
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/harkbus/hark/internal/race"
)

// TestDoubles checks what is compiled for doubles against cel-go's answers: for
// numbers at the edges, for operands that are not doubles, and for missing
// ones.
func TestDoubles(t *testing.T) {
	type pair struct {
		A float64 `json:"a"`
		B float64 `json:"b"`
	}
	operands := []string{"data.a", "data.b", "data.a * data.b", "data.a + 1.0", "data.a - data.b", "data.a / 0.0", "data.b / data.a", "data.a % 2.0", "(data.a / 0.0) - (data.b / 0.0)", "data.nope", "data.s", "data.s + 1.0", "1.0 - data.a"}
	limits := []string{"0.0", "1.0", "1", "1u", "-1", "9007199254740993", "9223372036854775807", "18446744073709551615u", "1e308", "data.b", `"x"`, "null"}
	var exprs []string
	for _, a := range operands {
		for _, b := range limits {
			for _, op := range []string{"==", "!=", "<", "<=", ">", ">="} {
				exprs = append(exprs, fmt.Sprintf("%s %s %s", a, op, b), fmt.Sprintf("%s %s %s", b, op, a))
			}
		}
	}
	docs := []string{`{"a":0,"b":0}`, `{"a":1,"b":-1}`, `{"a":-0.0,"b":1e308}`, `{"a":9007199254740993,"b":18446744073709551615}`, `{"a":1.5}`, `{"a":"x","b":true,"s":"1"}`, `{"a":null,"b":[1]}`, `{"a":1,"b":2,"s":"1`}
	values := []pair{{}, {1, -1}, {math.NaN(), 1}, {math.Inf(1), math.Inf(-1)}, {math.MaxFloat64, 1 << 63}, {1 << 53, 1}}
	every := 5 // has no divisor in common with the lists, so every operator gets its turn
	if testing.Short() || race.Enabled {
		every = 35
	}
	asked := 0
	for i, expr := range exprs {
		if i%every != 0 {
			continue
		}
		for i, doc := range docs {
			compare(t, expr, []byte(doc), i+7)
		}
		f, err := Compile(expr, For[pair]())
		if err != nil {
			continue
		}
		for i := range values {
			m := newMessage(&values[i])
			want, _ := reference(t, f, m, f.opts.sh.native(reflect.ValueOf(values[i])))
			if got, err := ours(f, m); got != want {
				t.Errorf("%s of %v: got %v (%v), want %v", expr, values[i], got, err, want)
			}
			asked++
		}
	}
	if asked < 500/every {
		t.Errorf("only %d questions about values: the test sees too little", asked)
	}
}
