package hark

import (
	"context"
	"errors"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
)

// Functions to pass to RegisterFunc, in every form that the compiler names
// differently.

type dial struct{ n int }

func (d *dial) OnTurn(context.Context, Signal) { d.n++ }
func (d dial) OnRead()                         {}
func (d *dial) closure() func()                { return func() { d.n++ } }

type turner interface{ OnTurn(context.Context, Signal) }

type (
	panel    struct{ dial }
	panelPtr struct{ *dial }
	panelIfc struct{ turner }
)

type box[T any] struct{ v T }

func (b *box[T]) OnPut(Signal) {}
func (b box[T]) OnGet()        { _ = b.v }

type hook func()

func (h hook) OnCall() {}

func onPlain(Signal)        {}
func onGeneric[T any]()     {}
func aClosure(n int) func() { return func() { _ = n } }

func (b *box[T]) closure() func() { return func() { _ = b.v } }
func genericClosure[T any]() func() {
	var v T
	return func() { _ = v }
}

var global = func() {}

func TestFuncName(t *testing.T) {
	d := &dial{}
	var ifc turner = d
	local := func() { d.n++ }
	tests := []struct {
		what string
		f    any
		want string // a regular expression
	}{
		{"method value, pointer", d.OnTurn, `hark\.dial#OnTurn`},
		{"method value, pointer method of an addressable value", (&dial{}).OnTurn, `hark\.dial#OnTurn`},
		{"method value, value receiver", d.OnRead, `hark\.dial#OnRead`},
		{"method expression, pointer", (*dial).OnTurn, `hark\.dial#OnTurn`},
		{"method expression, value", dial.OnRead, `hark\.dial#OnRead`},
		{"method expression, value method of pointer", (*dial).OnRead, `hark\.dial#OnRead`},
		{"promoted method value", (&panel{}).OnTurn, `hark\.dial#OnTurn`},
		{"promoted through a pointer", panelPtr{d}.OnTurn, `hark\.dial#OnTurn`},
		{"promoted method expression", (*panel).OnTurn, `hark\.panel#OnTurn`},
		{"promoted method expression, value", panel.OnRead, `hark\.panel#OnRead`},
		{"interface method value", ifc.OnTurn, `hark\.turner#OnTurn`},
		{"embedded interface", panelIfc{d}.OnTurn, `hark\.turner#OnTurn`},
		{"interface method expression", turner.OnTurn, `hark\.turner#OnTurn`},
		{"generic type, pointer", (&box[int]{}).OnPut, `hark\.box#OnPut`},
		{"generic type, value", box[map[string]dial]{}.OnGet, `hark\.box#OnGet`},
		{"generic type, method expression", (*box[int]).OnPut, `hark\.box#OnPut`},
		{"method of a function type", hook(nil).OnCall, `hark\.hook#OnCall`},
		{"function", onPlain, `hark#onPlain`},
		{"generic function", onGeneric[box[int]], `hark#onGeneric`},
		{"function of another package", slices.Sort[[]int], `slices#Sort`},
		// The compiler chooses the names of closures; only the pattern is
		// certain.
		{"global closure", global, `hark#init:func\d+`},
		{"local closure", local, `hark#TestFuncName:func\d+`},
		{"closure of a function", aClosure(1), `hark(\.\w+)?#\w+(:\w+)*:func\d+`},
		{"closure of a method", d.closure(), `hark\.dial#closure:func\d+`},
		{"closure of a method of a generic type", (&box[int]{}).closure(), `hark\.box#closure:func\d+`},
		{"closure of a generic function", genericClosure[int](), `hark(\.\w+)?#\w+(:\w+)*:func\d+`},
	}
	for _, tt := range tests {
		got, err := FuncName(tt.f)
		if err != nil || !regexp.MustCompile(`^`+tt.want+`$`).MatchString(got) {
			t.Errorf("%s: got %s, %v, want %s", tt.what, got, err, tt.want)
		}
		synctest.Test(t, func(t *testing.T) { registersAs(t, tt.what, tt.f, got) })
	}
	for what, f := range map[string]any{
		"nil":               nil,
		"nil function":      (func())(nil),
		"no function":       3,
		"made by reflect":   reflect.MakeFunc(reflect.TypeFor[func()](), nil).Interface(),
		"method by reflect": reflect.ValueOf(d).MethodByName("OnRead").Interface(),
	} {
		if got, err := FuncName(f); !errors.Is(err, ErrInvalidOption) {
			t.Errorf("%s: got %q, %v, want ErrInvalidOption", what, got, err)
		}
	}
}

// registersAs checks that RegisterFunc gives f the name and an ID, and that
// notifying either of them reaches f. If f is not a function of a signal, it
// checks that f is refused.
func registersAs(t *testing.T, what string, f any, name string) {
	n, err := NewNotifier(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := n.RegisterFunc(f)
	switch f.(type) {
	case func(context.Context, Signal), func(Signal), func():
	default:
		if !errors.Is(err, ErrInvalidOption) {
			t.Errorf("%s: registering a %T: %v, want ErrInvalidOption", what, f, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if l.Name() != name || !regexp.MustCompile(`^`+regexp.QuoteMeta(name)+`-[0-9a-f]{8}$`).MatchString(l.ID()) {
		t.Errorf("%s: registered as %s, %s, want %s and an ID of that", what, l.Name(), l.ID(), name)
	}
	for i, target := range []string{l.ID(), name} {
		reached, err := n.Notify(t.Context(), target)
		synctest.Wait()
		if s := l.Stats(); reached != 1 || err != nil || s.Delivered != uint64(i+1) || s.Failed != 0 {
			t.Errorf("%s: notify %s: %d, %v, then %+v", what, target, reached, err, s)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
