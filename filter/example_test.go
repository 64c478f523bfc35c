package filter_test

import (
	"fmt"
	"sort"
	"time"

	"github.com/harkbus/hark/filter"
)

// event is a message as filters see it. The messages of package hark qualify
// too.
type event struct {
	kind    string
	headers map[string]string
	data    any
}

func (e event) ID() string      { return "" }
func (e event) Source() string  { return "" }
func (e event) Type() string    { return e.kind }
func (e event) Subject() string { return "" }
func (e event) Topic() string   { return "orders" }
func (e event) Key() string     { return "" }
func (e event) Time() time.Time { return time.Time{} }
func (e event) Data() any       { return e.data }

func (e event) Header(name string) (string, bool) {
	v, ok := e.headers[name]
	return v, ok
}

func ExampleCompile() {
	f, err := filter.Compile(`type == "order.placed" && data.items.exists(i, i.sku == "A-1" && i.qty > 1)`)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f.Match(event{kind: "order.placed", data: []byte(`{"items": [{"sku": "B-7", "qty": 5}, {"sku": "A-1", "qty": 2}]}`)}))
	fmt.Println(f.Match(event{kind: "order.placed", data: []byte(`{"items": []}`)}))
	// Output:
	// true
	// false
}

func ExampleCompile_error() {
	_, err := filter.Compile(`topik == "orders"`)
	fmt.Println(err)
	// Output:
	// filter: 1:1: there is no "topik" (did you mean "topic"?)
	//     topik == "orders"
	//     ^
}

func ExampleFor() {
	type Order struct {
		Total    int    `json:"total"`
		Customer string `json:"customer"`
	}
	_, err := filter.Compile(`data.custommer == "ada"`, filter.For[Order]())
	fmt.Println(err)

	f := filter.MustCompile(`data.customer == "ada" && data.total % 2 == 0`, filter.For[Order]())
	fmt.Println(f.Match(event{data: &Order{Total: 4, Customer: "ada"}}))
	fmt.Println(f.Match(event{data: []byte(`{"total": 4, "customer": "ada"}`)}))
	// Output:
	// filter: 1:6: there is no field "custommer" in filter_test.Order (did you mean "customer"?)
	//     data.custommer == "ada"
	//          ^
	// true
	// true
}

func ExampleFilter_Eval() {
	f := filter.MustCompile(`data.total > 100.0`)
	fmt.Println(f.Eval(event{data: []byte(`{"total": 120}`)}))
	fmt.Println(f.Eval(event{data: []byte(`{"sum": 120}`)}))
	// Output:
	// true <nil>
	// false filter: data.total: no such field
}

func ExampleFilter_Explain() {
	f := filter.MustCompile(`data.kind == "a" && data.tags.map(t, t + "!") == ["x!"]`)
	fmt.Print(f.Explain())
	// Output:
	// expression: data.kind == "a" && data.tags.map(t, t + "!") == ["x!"]
	// reads:      data.kind
	// runs:       as closures, except on cel-go's interpreter, which reads the whole payload:
	//   1:47  data.tags.map(t, t + "!") == ["x!"]
	//         because a macro that makes a list runs on the interpreter
}

func ExampleSet() {
	routes, err := filter.NewSet[string]()
	if err != nil {
		fmt.Println(err)
		return
	}
	for name, where := range map[string]string{
		"europe": `headers["region"] == "eu"`,
		"large":  `data.total >= 1000.0`,
		"gold":   `data.tier == "gold" && headers["region"] == "eu"`,
	} {
		if err := routes.Add(name, filter.MustCompile(where)); err != nil {
			fmt.Println(err)
			return
		}
	}
	e := event{headers: map[string]string{"region": "eu"}, data: []byte(`{"tier": "gold", "total": 20}`)}
	names := routes.Match(e, nil)
	sort.Strings(names)
	fmt.Println(names)
	// Output:
	// [europe gold]
}
