package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"github.com/bytedance/sonic"
	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
	"github.com/tidwall/gjson"

	"github.com/harkbus/hark/filter"
)

// message is the envelope that hark's filters see.
type message struct{ data any }

func (m *message) ID() string                   { return "e-1" }
func (m *message) Source() string               { return "/shop" }
func (m *message) Type() string                 { return "order.placed" }
func (m *message) Subject() string              { return "" }
func (m *message) Topic() string                { return "orders" }
func (m *message) Key() string                  { return "" }
func (m *message) Time() time.Time              { return time.Time{} }
func (m *message) Header(string) (string, bool) { return "", false }
func (m *message) Data() any                    { return m.data }

func allocsPerRun(run func()) float64 {
	run()
	const n = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		run()
	}
	runtime.ReadMemStats(&after)
	return float64((after.Mallocs - before.Mallocs) / n)
}

// job is an expression in the languages of the peers and in Go.
type job struct {
	name   string
	docs   [][]byte
	hark   string
	typed  *filter.Filter // the same on a struct, where a missing field has its zero value
	cel    string
	expr   string
	cesql  string
	gjson  func(doc []byte) bool
	decode func(doc []byte) any // decodes the needed fields into a struct
	plain  func(v any) bool
}

var matched int // prevents the work from being optimized away

func count(ok bool) {
	if ok {
		matched++
	}
}

func celProgram(text string) cel.Program {
	env, err := cel.NewEnv(cel.Variable("data", cel.DynType))
	check(err)
	ast, issues := env.Compile(text)
	check(issues.Err())
	p, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize))
	check(err)
	return p
}

func evalCEL(p cel.Program, vars map[string]any) bool {
	out, _, err := p.Eval(vars)
	return err == nil && out.Value() == true
}

func exprProgram(text string) *vm.Program {
	p, err := expr.Compile(text, expr.AsBool(), expr.AllowUndefinedVariables())
	check(err)
	return p
}

func evalExpr(p *vm.Program, env map[string]any) bool {
	out, err := expr.Run(p, env)
	ok, _ := out.(bool)
	return err == nil && ok
}

func (j job) candidates() []*candidate {
	over := func(one func(doc []byte, i int)) func() {
		return func() {
			for i, doc := range j.docs {
				one(doc, i)
			}
		}
	}
	f := filter.MustCompile(j.hark)
	exact := filter.MustCompile(j.hark, filter.Exact())
	typed := j.typed
	p, e := celProgram(j.cel), exprProgram(j.expr)
	m := &message{}
	vars := map[string]any{}
	structs, boxed := make([]any, len(j.docs)), make([]any, len(j.docs))
	for i, doc := range j.docs {
		structs[i], boxed[i] = j.decode(doc), doc
	}
	cs := []*candidate{
		{name: "hark, JSON text", run: over(func(_ []byte, i int) { m.data = boxed[i]; count(f.Match(m)) })},
		{name: "hark, JSON text, Exact", run: over(func(_ []byte, i int) { m.data = boxed[i]; count(exact.Match(m)) })},
		{name: "json.Unmarshal + cel-go", run: over(func(doc []byte, _ int) {
			var v any
			if json.Unmarshal(doc, &v) == nil {
				vars["data"] = v
				count(evalCEL(p, vars))
			}
		})},
		{name: "sonic + cel-go", run: over(func(doc []byte, _ int) {
			var v any
			if sonic.Unmarshal(doc, &v) == nil {
				vars["data"] = v
				count(evalCEL(p, vars))
			}
		})},
		{name: "json.Unmarshal + expr-lang", run: over(func(doc []byte, _ int) {
			var v any
			if json.Unmarshal(doc, &v) == nil {
				vars["data"] = v
				count(evalExpr(e, vars))
			}
		})},
		{name: "gjson by hand", run: over(func(doc []byte, _ int) { count(j.gjson(doc)) }), note: "does not check the text"},
		{name: "json.Unmarshal into a struct + Go", run: over(func(doc []byte, _ int) { count(j.plain(j.decode(doc))) })},
		{name: "hark, Go struct", run: over(func(_ []byte, i int) { m.data = structs[i]; count(typed.Match(m)) }), note: "nothing to decode"},
		{name: "Go on a struct", run: over(func(_ []byte, i int) { count(j.plain(structs[i])) }), note: "nothing to decode"},
	}
	if j.cesql != "" {
		cs = append(cs, cesqlCandidate(j, over))
	}
	for _, c := range cs {
		c.per = len(j.docs)
		matched = 0
		c.run()
		if matched != j.want() {
			panic(c.name + " disagrees on " + j.name)
		}
	}
	return cs
}

func (j job) want() int {
	n := 0
	for _, doc := range j.docs {
		if j.gjson(doc) {
			n++
		}
	}
	return n
}

const orderText = `{"id":"ord-000172","kind":"order.placed","created_at":"2024-05-06T07:08:09Z","customer":{"id":"c-4711","name":"Ada Byron","tier":"gold","address":{"street":"Main Street 5","city":"Berlin","country":"DE"}},"items":[{"sku":"A-100","qty":2,"price":19.9},{"sku":"B-200","qty":1,"price":5.5},{"sku":"C-300","qty":7,"price":1.25}],"note":"leave at the door, \"thanks\"","total":54.05,"currency":"EUR","paid":true,"attempts":1,"region":"eu-central","source":{"app":"shop","version":"4.2.1"},"tags":["new","web"]}`

type orderFields struct {
	Kind   string  `json:"kind"`
	Total  float64 `json:"total"`
	Region string  `json:"region"`
}

var orderJob = job{
	name:  "three terms, an order of 500 bytes",
	docs:  [][]byte{[]byte(orderText)},
	hark:  `data.kind == "order.placed" && data.total > 50.0 && data.region.startsWith("eu-")`,
	typed: filter.MustCompile(`data.kind == "order.placed" && data.total > 50.0 && data.region.startsWith("eu-")`, filter.For[orderFields]()),
	cel:   `data.kind == "order.placed" && data.total > 50.0 && data.region.startsWith("eu-")`,
	expr:  `data.kind == "order.placed" && data.total > 50.0 && data.region startsWith "eu-"`,
	cesql: `kind = 'order.placed' AND total > 50 AND region LIKE 'eu-%'`,
	gjson: func(doc []byte) bool {
		return gjson.GetBytes(doc, "kind").Str == "order.placed" && gjson.GetBytes(doc, "total").Num > 50 &&
			strings.HasPrefix(gjson.GetBytes(doc, "region").Str, "eu-")
	},
	decode: func(doc []byte) any {
		v := new(orderFields)
		_ = json.Unmarshal(doc, v)
		return v
	},
	plain: func(v any) bool {
		o := v.(*orderFields)
		return o.Kind == "order.placed" && o.Total > 50 && strings.HasPrefix(o.Region, "eu-")
	},
}

type hookFields struct {
	Action     string `json:"action"`
	Repository struct {
		FullName string `json:"full_name"`
		Private  bool   `json:"private"`
	} `json:"repository"`
	Sender struct {
		Login string `json:"login"`
	} `json:"sender"`
}

var hookJob = job{
	name:  "three terms, 329 real webhooks of 2 to 27 kB",
	hark:  `data.action != "deleted" && data.repository.full_name == "Codertocat/Hello-World" && data.sender.login == "Codertocat"`,
	typed: filter.MustCompile(`data.action != "" && data.action != "deleted" && data.repository.full_name == "Codertocat/Hello-World" && data.sender.login == "Codertocat"`, filter.For[hookFields]()),
	cel:   `data.action != "deleted" && data.repository.full_name == "Codertocat/Hello-World" && data.sender.login == "Codertocat"`,
	expr:  `data.action != nil && data.action != "deleted" && data.repository?.full_name == "Codertocat/Hello-World" && data.sender?.login == "Codertocat"`,
	gjson: func(doc []byte) bool {
		a := gjson.GetBytes(doc, "action")
		return a.Exists() && a.Str != "deleted" && gjson.GetBytes(doc, "repository.full_name").Str == "Codertocat/Hello-World" &&
			gjson.GetBytes(doc, "sender.login").Str == "Codertocat"
	},
	decode: func(doc []byte) any {
		v := new(hookFields)
		_ = json.Unmarshal(doc, v)
		return v
	},
	plain: func(v any) bool {
		o := v.(*hookFields)
		return o.Action != "" && o.Action != "deleted" && o.Repository.FullName == "Codertocat/Hello-World" && o.Sender.Login == "Codertocat"
	},
}
