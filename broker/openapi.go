package broker

import (
	"cmp"
	"maps"
	"net/http"
	"reflect"
	"strconv"
	"strings"
)

// openAPIEndpoints serve the description of the others.
func openAPIEndpoints() []endpoint {
	return []endpoint{{
		method: http.MethodGet, path: "/v1/openapi.json", name: "getOpenAPI", summary: "show this document", access: anybody,
		answer: &answer{doc: "an OpenAPI document"},
		handle: func(c *call) error { return c.reply(openAPI(c.broker.web.endpoints)) },
	}}
}

// openAPI returns the OpenAPI document for some endpoints.
func openAPI(all []endpoint) map[string]any {
	types := schemas{}
	refusalSchema := types.of(reflect.TypeFor[refusal]())
	paths := map[string]map[string]any{}
	for i := range all {
		e := &all[i]
		path := strings.ReplaceAll(strings.ReplaceAll(e.path, "...}", "}"), "{$}", "")
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(e.method)] = e.operation(types, refusalSchema)
	}
	return map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "hark broker", "version": "1",
			"description": "The HTTP API of the broker that `hark serve` runs. " +
				"If the broker has users, requests need credentials: `Authorization: Bearer TOKEN`, or Basic with the name of the user and the password or token. " +
				"Errors are application/problem+json (RFC 9457).",
		},
		"paths":    paths,
		"security": []any{map[string]any{"token": []string{}}, map[string]any{"password": []string{}}, map[string]any{}},
		"components": map[string]any{
			"schemas": types,
			"securitySchemes": map[string]any{
				"token":    map[string]any{"type": "http", "scheme": "bearer"},
				"password": map[string]any{"type": "http", "scheme": "basic"},
			},
		},
	}
}

// operation describes an endpoint.
func (e *endpoint) operation(types schemas, refusalSchema schema) map[string]any {
	op := map[string]any{
		"operationId": e.name, "summary": e.summary,
		"description": strings.TrimSpace(e.doc + "\n\nNeeds " + e.access.doc + "."),
		"responses":   e.responses(types, refusalSchema),
	}
	if e.access.public {
		op["security"] = []any{}
	}
	var params []any
	for _, p := range e.params {
		s := schema{}
		maps.Copy(s, p.schema)
		if p.def != "" {
			s["default"] = typedDefault(p)
		}
		params = append(params, map[string]any{"name": p.name, "in": p.in, "required": p.must, "description": p.doc, "schema": s})
	}
	if params != nil {
		op["parameters"] = params
	}
	if b := e.body; b != nil {
		content := map[string]any{}
		media := b.media
		if media == nil {
			media = []string{"application/json"}
		}
		for _, m := range media {
			content[m] = map[string]any{"schema": schemaOf(types, b.shape)}
		}
		op["requestBody"] = map[string]any{"required": !b.optional, "description": b.doc, "content": content}
	}
	return op
}

// responses describes the answers of an endpoint.
func (e *endpoint) responses(types schemas, refusalSchema schema) map[string]any {
	all := map[string]any{}
	first := outcome{status: e.success()}
	if e.answer != nil {
		first.answer = *e.answer
	}
	for _, o := range append([]outcome{first}, e.others...) {
		o.describe(all, types, e.answer != nil || o.status != first.status)
	}
	for _, status := range e.outcomes() {
		all[strconv.Itoa(status)] = map[string]any{
			"description": http.StatusText(status),
			"content":     map[string]any{refusalType: map[string]any{"schema": refusalSchema}},
		}
	}
	return all
}

// describe adds a success to the responses of an operation. If the status is
// already there it adds another form of the answer.
func (o *outcome) describe(all map[string]any, types schemas, content bool) {
	key := strconv.Itoa(o.status)
	response, _ := all[key].(map[string]any)
	if response == nil {
		response = map[string]any{"description": cmp.Or(o.answer.doc, http.StatusText(o.status))}
		all[key] = response
	}
	if !content || o.answer.media == noContent {
		return
	}
	forms, _ := response["content"].(map[string]any)
	if forms == nil {
		forms = map[string]any{}
		response["content"] = forms
	}
	forms[cmp.Or(o.answer.media, "application/json")] = map[string]any{"schema": schemaOf(types, o.answer.shape)}
}

func schemaOf(types schemas, shape any) schema {
	if shape == nil {
		return schema{}
	}
	return types.of(reflect.TypeOf(shape))
}

// typedDefault returns the default of a parameter with the type of its schema.
func typedDefault(p param) any {
	switch p.schema["type"] {
	case "integer":
		n, _ := strconv.ParseUint(p.def, 10, 64) // TestOpenAPI checks it
		return n
	case "boolean":
		return p.def == "true"
	}
	return p.def
}
