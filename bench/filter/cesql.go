package main

import (
	"encoding/json"

	cesql "github.com/cloudevents/sdk-go/sql/v2/parser"
	"github.com/cloudevents/sdk-go/v2/event"
)

// cesqlCandidate evaluates CESQL. That language sees only the attributes of an
// event, not its payload, so the fields are first decoded into extension
// attributes.
func cesqlCandidate(j job, over func(func([]byte, int)) func()) *candidate {
	e, err := cesql.Parse(j.cesql)
	check(err)
	run := over(func(doc []byte, _ int) {
		var fields orderFields
		if json.Unmarshal(doc, &fields) != nil {
			return
		}
		ev := event.New()
		ev.SetID("e-1")
		ev.SetSource("/shop")
		ev.SetType("order.placed")
		ev.SetExtension("kind", fields.Kind)
		ev.SetExtension("total", int(fields.Total))
		ev.SetExtension("region", fields.Region)
		v, err := e.Evaluate(ev)
		ok, _ := v.(bool)
		count(err == nil && ok)
	})
	return &candidate{name: "json.Unmarshal into attributes + CESQL", run: run, note: "sees attributes only"}
}
