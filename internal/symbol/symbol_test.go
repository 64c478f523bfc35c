package symbol

import (
	"strings"
	"testing"

	"github.com/harkbus/hark/internal/names"
)

// TestSplit covers symbols of packages that cannot be imported.
func TestSplit(t *testing.T) {
	tests := []struct{ symbol, want string }{
		{"main.main", "main#main"},
		{"main.(*T).On-fm", "main.T#On"},
		{"github.com/x/counter.(*Counter).OnIncrement-fm", "counter.Counter#OnIncrement"},
		{"github.com/x/counter.Counter.OnIncrement", "counter.Counter#OnIncrement"},
		{"github.com/x/counter/v2.(*Counter).On", "counter.Counter#On"},
		{"github.com/x/counter/v12.On", "counter#On"},
		{"example.com/v2.On", "example_com#On"},
		{"v2.On", "v2#On"},
		{"gopkg.in/yaml%2ev3.(*Node).Decode", "yaml.Node#Decode"},
		{"gopkg.in/x/go-check%2ev1.C.Assert-fm", "go-check.C#Assert"},
		{"example.com/dot%2epkg.F", "dot_pkg#F"},
		{"example.com/gr%c3%b6%c3%9fe.F", "größe#F"},
		{"example.com/x%zz.F", "x%zz#F"},
		{"github.com/a/b/vendor/github.com/x/counter.(*Counter).On", "counter.Counter#On"},
		{"github.com/x/counter_test.On", "counter_test#On"},
		{"github.com/x/box.(*Box[...]).On-fm", "box.Box#On"},
		{"github.com/x/box.Box[github.com/y/z.T[int]].On", "box.Box#On"},
		{"github.com/x/box.Map[go.shape.int,go.shape.string]", "box#Map"},
		{"github.com/x/box.Map[...].func1", "box#Map:func1"},
		{"main.glob..func1", "main#glob:func1"},
		{"main.init.0.func1", "main#init:0:func1"},
		{"main.init.func2.3", "main#init:func2:3"},
		{"main.Start.func1.2", "main#Start:func1:2"},
		{"main.(*T).Start.func1", "main.T#Start:func1"},
		{"main.T.Start.func1", "main.T#Start:func1"},
		{"main.main.(*T).Start.func6", "main.T#Start:func6"},
		{"main.(*T).A.main.(*T).B.func7.func10", "main.T#B:func7:func10"},
		{"main.Start.gowrap1", "main#Start:gowrap1"},
		{"main.Start.deferwrap2", "main#Start:deferwrap2"},
		{"main.Each-range1", "main#Each:range1"},
		{"main.(*T).Each-range1", "main.T#Each:range1"},
		{"main.Each.func1-range2", "main#Each:func1:range2"},
	}
	for _, tt := range tests {
		owner, member := Split(tt.symbol)
		if got := owner + "#" + member; got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.symbol, got, tt.want)
		}
		if err := names.Check(owner + "." + member); err != nil {
			t.Errorf("%s: %v", tt.symbol, err)
		}
	}
}

// FuzzSplit checks that no symbol yields a name that is read back as another one.
func FuzzSplit(f *testing.F) {
	f.Add("github.com/x/counter/v2.(*Counter[...]).On-fm")
	f.Add("gopkg.in/yaml%2ev3.glob..func1")
	f.Fuzz(func(t *testing.T, symbol string) {
		owner, member := Split(symbol)
		if strings.ContainsAny(owner, "#*>") || strings.ContainsAny(member, ".#*>-") {
			t.Errorf("%q: got %q, %q", symbol, owner, member)
		}
	})
}
