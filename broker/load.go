package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

// DefaultFile is the configuration file that is read if it exists and no other
// one is named.
const DefaultFile = "hark.yaml"

// Source says where a configuration comes from.
type Source struct {
	// File is the path of the file. Empty for DefaultFile, which need not be
	// there, "-" for none.
	File string
	// Getenv returns environment variables; nil for none.
	Getenv func(string) string
	// Flags are settings by the names of their flags; nil for none.
	Flags map[string]string
}

// Load reads a configuration and checks it. Mistakes in it are returned as
// Problems, all at once; other errors are those of reading the file.
func Load(s Source) (*Config, error) {
	c := Default()
	path := s.File
	if path == "" {
		path = DefaultFile
	}
	var ps Problems
	if path != "-" {
		data, err := os.ReadFile(path)
		switch {
		case err == nil:
			c.file = path
			ps = c.decode(data)
		case s.File != "" || !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
	}
	ps = append(ps, c.override(s)...)
	ps = append(ps, c.without(c.validate(), ps)...)
	if err := ps.asError(); err != nil {
		return nil, err
	}
	return c, nil
}

// without removes problems that follow from those in read, which were found while
// reading: those about a value that could not be read, and about something missing
// where a key may be misspelt.
func (c *Config) without(ps, read Problems) Problems {
	return slices.DeleteFunc(ps, func(p *Problem) bool {
		_, there := c.places[p.Key]
		return slices.ContainsFunc(read, func(r *Problem) bool {
			switch {
			case r.Line > 0 && r.Line == p.Line && r.Column == p.Column:
				return true
			case r.Key == "": // from a flag or a variable, or a key of the file: users or tls may be misspelt
				return p.Key == "" && p.Where == r.Where || strings.HasPrefix(p.Text, exposed)
			case r.Key == p.Key, strings.HasPrefix(r.Key, p.Key+"["):
				return true
			}
			return !there && r.Key == parent(p.Key)
		})
	})
}

// parent returns the key that contains a key, or "" for the whole file.
func parent(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

// override applies the environment and the flags.
func (c *Config) override(s Source) (ps Problems) {
	take := func(f *field[Config], where, text string) {
		if err := f.set(c, []string{text}); err != nil {
			ps = append(ps, &Problem{Where: where, Text: err.Error()})
		}
		delete(c.places, f.key)
		c.sources[f.key] = where
	}
	known := map[string]bool{}
	for i := range settings {
		f := &settings[i]
		name := flagName(f.key)
		known[name] = true
		if flag, ok := s.Flags[name]; ok {
			take(f, "--"+name, flag)
			continue
		}
		if s.Getenv == nil {
			continue
		}
		if text := s.Getenv(envName(f.key)); text != "" {
			take(f, envName(f.key), text)
		}
	}
	for name := range s.Flags {
		if !known[name] {
			ps = append(ps, &Problem{Where: "--" + name, Text: "there is no such setting" + didYouMean(name, slices.Sorted(maps.Keys(known)))})
		}
	}
	return ps
}
