package filter

import "testing"

// event is about 500 bytes long. The fields that filters ask about are spread
// over it.
const event = `{"id":"ord-000172","kind":"order.placed","created_at":"2024-05-06T07:08:09Z","customer":{"id":"c-4711","name":"Ada Byron","tier":"gold","address":{"street":"Main Street 5","city":"Berlin","country":"DE"}},"items":[{"sku":"A-100","qty":2,"price":19.9},{"sku":"B-200","qty":1,"price":5.5},{"sku":"C-300","qty":7,"price":1.25}],"note":"leave at the door, \"thanks\"","total":54.05,"currency":"EUR","paid":true,"attempts":1,"region":"eu-central","source":{"app":"shop","version":"4.2.1"},"tags":["new","web"]}`

const threeTerms = `data.kind == "order.placed" && data.total > 50.0 && data.region.startsWith("eu-")`

type benchOrder struct {
	Kind   string  `json:"kind"`
	Total  float64 `json:"total"`
	Region string  `json:"region"`
}

func BenchmarkFilter(b *testing.B) {
	f := mustCompile(b, threeTerms)
	exact := mustCompile(b, threeTerms, Exact())
	typed := mustCompile(b, threeTerms, For[benchOrder]())
	attrs := mustCompile(b, `type == "push" && topic.startsWith("hooks.") && headers["region"] == "eu"`)
	macro := mustCompile(b, `data.items.exists(i, i.sku == "C-300" && i.qty > 5)`)
	hook := mustCompile(b, `data.action == "opened" && data.repository.full_name == "Codertocat/Hello-World" && data.sender.login == "Codertocat"`)
	large := webhooks()[0]
	for _, doc := range webhooks() {
		if hook.Match(newMessage(doc)) {
			large = doc
		}
	}
	for _, bb := range []struct {
		name string
		f    *Filter
		data any
	}{
		{"bytes", f, []byte(event)},
		{"bytes-exact", exact, []byte(event)},
		{"struct", typed, &benchOrder{"order.placed", 54.05, "eu-central"}},
		{"struct-as-bytes", typed, []byte(event)},
		{"attributes", attrs, []byte(event)},
		{"macro", macro, []byte(event)},
		{"webhook", hook, large},
	} {
		b.Run(bb.name, func(b *testing.B) {
			m := newMessage(bb.data)
			b.ReportAllocs()
			for b.Loop() {
				if !bb.f.Match(m) {
					b.Fatal("no match")
				}
			}
		})
	}
}
