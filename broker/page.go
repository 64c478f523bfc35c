package broker

import (
	"sort"

	"github.com/harkbus/hark/internal/names"
)

// page is a part of a list.
type page[T any] struct {
	Items []T    `json:"items" doc:"the entries"`
	Next  string `json:"next,omitempty" doc:"the value of the parameter after for the next page; missing on the last page"`
}

// pageOf returns a page of a complete, sorted list of names: those after the
// parameter after that keep accepts. make creates the entries.
func pageOf[T any](c *call, all []string, keep func(name string) bool, make func(name string) (T, error)) (*page[T], error) {
	p := &page[T]{Items: []T{}}
	after := c.text("after")
	from := sort.SearchStrings(all, after)
	for i, name := range all[from:] {
		if after != "" && name == after || keep != nil && !keep(name) {
			continue
		}
		item, err := make(name)
		if err != nil {
			return nil, err
		}
		p.Items = append(p.Items, item)
		if uint64(len(p.Items)) == c.number("limit") {
			if from+i+1 < len(all) {
				p.Next = name
			}
			break
		}
	}
	return p, nil
}

// matches returns a filter for names that a pattern matches, or all names if it is
// empty, and that the principal administers.
func (c *call) matches(pattern string) func(name string) bool {
	return func(name string) bool {
		return (pattern == "" || names.Match(pattern, name)) && c.who.mayAdminister(name)
	}
}
