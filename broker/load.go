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

// DefaultFile is the configuration that is read if it is there and no other one
// is named.
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

// Load reads a configuration and checks it. What is wrong is returned as
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
	ps = append(ps, without(c.validate(), ps)...)
	if err := ps.asError(); err != nil {
		return nil, err
	}
	return c, nil
}

// without returns the problems that do not follow from others, which were found
// when the same things were read.
func without(ps, read Problems) Problems {
	faulty, root := map[string]bool{}, false
	for _, p := range read {
		faulty[entry(p.Key)] = true
		root = root || p.Key == ""
	}
	return slices.DeleteFunc(ps, func(p *Problem) bool {
		return faulty[entry(p.Key)] || root && strings.HasPrefix(p.Text, exposed) // users or tls may be misspelt
	})
}

// entry returns the setting that a key is, or the entry of a list that it is in.
func entry(key string) string {
	if before, _, ok := strings.Cut(key, "]"); ok {
		return before
	}
	return key
}

// override takes what the environment and the flags say.
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
