package broker

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// ofKubernetes matches variables that Kubernetes sets for services whose names
// begin with hark.
var ofKubernetes = regexp.MustCompile(`_SERVICE_(HOST|PORT)(_|$)|_PORT(_|$)`)

// UnknownVariables returns the environment variables, in the form of os.Environ,
// that begin with HARK_, have a value, and are neither settings nor in others, each
// as a Problem that suggests the one that may be meant. They may be meant for
// another program, so Load ignores them.
func UnknownVariables(environ, others []string) (ps Problems) {
	known := map[string]bool{}
	for _, name := range others {
		known[name] = true
	}
	for _, s := range Settings() {
		known[s.Env] = true
	}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "HARK_") || value == "" || known[name] || ofKubernetes.MatchString(name) {
			continue
		}
		ps = append(ps, &Problem{Where: name, Text: "there is no such setting" + didYouMean(name, slices.Sorted(maps.Keys(known)))})
	}
	slices.SortFunc(ps, func(a, b *Problem) int { return strings.Compare(a.Where, b.Where) })
	return ps
}
