package release

import (
	"runtime/debug"
	"testing"
)

func TestVersion(t *testing.T) {
	tests := []struct {
		name string
		info debug.BuildInfo
		want string
	}{
		{"the program", debug.BuildInfo{Main: debug.Module{Path: module, Version: "v1.2.0"}}, "v1.2.0"},
		{"built without a version", debug.BuildInfo{Main: debug.Module{Path: module}}, Unknown},
		{"in another program", debug.BuildInfo{Main: debug.Module{Path: "example.com/shop", Version: "v9.0.0"}, Deps: []*debug.Module{{Path: "example.com/x", Version: "v3.0.0"}, {Path: module, Version: "v1.3.0"}}}, "v1.3.0"},
		{"replaced by a directory", debug.BuildInfo{Main: debug.Module{Path: "example.com/shop"}, Deps: []*debug.Module{{Path: module, Version: "v1.3.0", Replace: &debug.Module{Path: "../hark"}}}}, Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := versionIn(&tt.info); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if Version() == "" {
		t.Error("this program has no version, want one or " + Unknown)
	}
}
