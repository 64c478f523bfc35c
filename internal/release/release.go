// Package release knows which release of hark a program was built with.
package release

import "runtime/debug"

// module is the path of hark's module.
const module = "github.com/harkbus/hark"

// Unknown is the version of a program that was built from source which has none.
const Unknown = "(devel)"

// Version returns the version of hark in this program, such as v1.2.0; Unknown if
// it was not built from a release or a commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Unknown
	}
	return versionIn(info)
}

// versionIn returns the version of hark in a program: its main module's, or
// that of a module that the program uses.
func versionIn(info *debug.BuildInfo) string {
	found := Unknown
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path != module {
			continue
		}
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Version != "" {
			found = m.Version
		}
	}
	return found
}
