package filedriver

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/harkbus/hark/driver/natsdriver"
)

// parseURL returns the directory and the options that a URL names.
func parseURL(raw string) (dir string, opts []natsdriver.Option, err error) {
	rest, ok := strings.CutPrefix(raw, "file:")
	if !ok {
		return "", nil, fmt.Errorf("want file:PATH")
	}
	if after, ok := strings.CutPrefix(rest, "//"); ok { // file://[localhost]/PATH
		slash := strings.IndexByte(after, '/')
		if slash < 0 || after[:slash] != "" && after[:slash] != "localhost" {
			return "", nil, fmt.Errorf("want file:PATH; after file:// comes an absolute path, as in file:///var/lib/hark")
		}
		rest = after[slash:]
	}
	if strings.Contains(rest, "#") {
		return "", nil, fmt.Errorf("the URL has a fragment; write a # in a path as %%23")
	}
	path, query, _ := strings.Cut(rest, "?")
	if dir, err = url.PathUnescape(path); err != nil {
		return "", nil, err
	}
	if dir == "" {
		return "", nil, fmt.Errorf("want file:PATH, such as file:./data")
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", nil, fmt.Errorf("the parameters of the URL: %w", err)
	}
	for name, given := range values {
		switch {
		case name != "lease":
			return "", nil, fmt.Errorf("parameter %s of the URL is unknown; the only one is lease", name)
		case len(given) > 1:
			return "", nil, fmt.Errorf("parameter %s of the URL is given %d times; give it once", name, len(given))
		}
	}
	if values.Has("lease") {
		lease, err := time.ParseDuration(values.Get("lease"))
		if err != nil {
			return "", nil, fmt.Errorf("parameter lease of the URL: %w", err)
		}
		opts = append(opts, natsdriver.Lease(lease))
	}
	return dir, opts, nil
}
