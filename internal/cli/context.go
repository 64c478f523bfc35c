package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/harkbus/hark/internal/filelock"
	"github.com/harkbus/hark/internal/names"
)

var contextCommand = command{
	name: "context", about: "name brokers, and choose which one to use",
	long: `A context is a name for the address of a broker and the user to connect as. Commands
that need a broker use, in this order, --url or --context, HARK_URL and
HARK_HTTP_URL, HARK_CONTEXT, the context that is in use, and ` + defaultURL + `.

Contexts are kept, with their passwords, in contexts.json in the hark folder of the
user's configuration directory, or in the file that HARK_CONTEXTS names. Only the
user may read the file.`,
	subs: []command{
		{
			name: "add", args: "NAME URL", about: "add a context, or change one",
			long: `The URL is as for hark.Open, such as hark://ada@broker.example:7422 or
tls://broker.example?tlsca=/etc/ssl/our-ca.pem. A password or token read with
--password stays out of the shell history. The first context added becomes the one
in use.`,
			setup: func(fs *flag.FlagSet) action {
				http := fs.String("http", "", "`URL` of the HTTP API, if it is not on port "+defaultHTTPPort+" beside port "+defaultPort)
				about := fs.String("about", "", "a `note`, for the list")
				password := fs.Bool("password", false, "read the password of the user, or a token, from the terminal or from one line of the input")
				use := fs.Bool("use", false, "make it the context in use")
				return func(ctx context.Context, words []string, s Streams) error {
					if len(words) != 2 {
						return usageError{fmt.Errorf("want NAME and URL, got %s", plural(len(words), "word", "words"))}
					}
					c := contextEntry{URL: words[1], HTTP: *http, About: *about}
					if err := c.check(words[0]); err != nil {
						return usageError{err}
					}
					var err error
					if c.URL, err = withWholePaths(c.URL); err != nil {
						return err
					}
					if *password {
						secret, err := readPassword(ctx, s, "password: ")
						if err == nil {
							c.URL, err = withPassword(c.URL, string(secret))
						}
						if err != nil {
							return err
						}
					}
					return changeContexts(ctx, func(all *contextFile) error {
						all.Contexts[words[0]] = c
						if *use || all.Current == "" {
							all.Current = words[0]
						}
						return nil
					})
				}
			},
		},
		{
			name: "use", args: "NAME", about: "use a context from now on; - for none",
			words: contextNames,
			setup: func(*flag.FlagSet) action {
				return func(ctx context.Context, words []string, _ Streams) error {
					return withContext(ctx, words, func(all *contextFile, name string) { all.Current = name }, func(all *contextFile) { all.Current = "" })
				}
			},
		},
		{
			name: "list", about: "list the contexts; * marks the one in use",
			setup: func(fs *flag.FlagSet) action {
				output := outputFlag(fs, "text", "json")
				return func(_ context.Context, _ []string, s Streams) error { return listContexts(*output, s) }
			},
		},
		{
			name: "show", args: "[NAME]", about: "show where commands find the broker, or what a context says",
			words: contextNames,
			long:  "Without NAME it shows what is in use, and where that is set. Secrets are not shown.",
			setup: func(fs *flag.FlagSet) action {
				f := httpFlags(fs)
				output := outputFlag(fs, "text", "json")
				return func(_ context.Context, words []string, s Streams) error {
					switch {
					case len(words) > 1:
						return usageError{fmt.Errorf("want at most one name, got %s", plural(len(words), "word", "words"))}
					case len(words) == 1 && (f.context != "" || f.url != ""):
						return usageError{errors.New("give either NAME, or --url or --context")}
					case len(words) == 1:
						f.context = words[0]
					}
					return showPlace(f, *output, s)
				}
			},
		},
		{
			name: "remove", args: "NAME", about: "remove a context",
			words: contextNames,
			setup: func(*flag.FlagSet) action {
				return func(ctx context.Context, words []string, _ Streams) error {
					return withContext(ctx, words, func(all *contextFile, name string) {
						delete(all.Contexts, name)
						if all.Current == name {
							all.Current = ""
						}
					}, nil)
				}
			},
		},
	},
}

// contextFile is the contents of the file of contexts.
type contextFile struct {
	Current  string                  `json:"current,omitempty"`
	Contexts map[string]contextEntry `json:"contexts"`
}

// contextEntry is one context.
type contextEntry struct {
	URL   string `json:"url"`
	HTTP  string `json:"http,omitempty"`
	About string `json:"about,omitempty"`
}

// check returns what is wrong with a context with that name.
func (c *contextEntry) check(name string) error {
	if err := names.Check(name); err != nil {
		return err
	}
	p := place{URL: c.URL}
	if err := p.readURL(c.HTTP == ""); err != nil {
		return err
	}
	if err := p.readWeb(c.HTTP); err != nil {
		return &callError{"--http", err}
	}
	return nil
}

func (f *contextFile) names() []string { return slices.Sorted(maps.Keys(f.Contexts)) }

// contextsPath returns the path of the file of contexts.
func contextsPath() (string, error) {
	if path := os.Getenv("HARK_CONTEXTS"); path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("%w; HARK_CONTEXTS names the file of contexts", err)
	}
	return filepath.Join(dir, "hark", "contexts.json"), nil
}

// loadContexts reads the contexts. It returns none if there is no file, or no place
// for one.
func loadContexts() (*contextFile, error) {
	all := &contextFile{Contexts: map[string]contextEntry{}}
	path, err := contextsPath()
	if err != nil {
		return all, nil // a user without a home directory has no contexts
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("contexts: %w", err)
	}
	read := json.NewDecoder(bytes.NewReader(text))
	read.DisallowUnknownFields()
	if err := read.Decode(all); err != nil {
		return nil, fmt.Errorf("contexts: %s: %w; correct or remove the file", path, err)
	}
	if all.Contexts == nil {
		all.Contexts = map[string]contextEntry{}
	}
	return all, nil
}

// lockContexts makes others wait who change the file of contexts, until release is called.
func lockContexts(ctx context.Context, path string) (release func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600) // the file itself is replaced
	if err != nil {
		return nil, fmt.Errorf("contexts: %w", err)
	}
	busy := fmt.Errorf("contexts: another command has been changing %s for %v; end it and try again", path, lockTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, lockTimeout, busy)
	defer cancel()
	for {
		if err = filelock.Try(f); err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, filelock.ErrLocked) {
			return nil, errors.Join(fmt.Errorf("contexts: %w", err), f.Close())
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		}
	}
}

// lockTimeout is how long a command waits while another one changes the file of contexts,
// and lockPoll how often it looks.
const (
	lockTimeout = 10 * time.Second
	lockPoll    = 5 * time.Millisecond
)

// changeContexts changes the file of contexts atomically.
func changeContexts(ctx context.Context, change func(*contextFile) error) error {
	path, err := contextsPath()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	release, err := lockContexts(ctx, path)
	if err != nil {
		return err
	}
	defer release()
	all, err := loadContexts()
	if err != nil {
		return err
	}
	if err := change(all); err != nil {
		return err
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".contexts-*") // created with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// withContext changes the file for the context named by the only word. none handles
// the word -; it is nil where that is not allowed.
func withContext(ctx context.Context, words []string, change func(*contextFile, string), none func(*contextFile)) error {
	if len(words) != 1 {
		return usageError{fmt.Errorf("want one name, got %s", plural(len(words), "word", "words"))}
	}
	return changeContexts(ctx, func(all *contextFile) error {
		if words[0] == "-" && none != nil {
			none(all)
			return nil
		}
		if _, ok := all.Contexts[words[0]]; !ok {
			return usageError{fmt.Errorf("unknown context %q%s; hark context list shows the known ones", words[0], suggestion(words[0], all.names()))}
		}
		change(all, words[0])
		return nil
	})
}

// withPassword returns a URL with a password for its user, or with a token if it
// has no user.
func withPassword(raw, secret string) (string, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return "", fmt.Errorf("--password: %s uses no password", redacted(raw))
	}
	hosts, query, hasQuery := strings.Cut(rest, "?")
	first, others, several := strings.Cut(hosts, ",")
	user, host, ok := strings.Cut(first, "@")
	switch {
	case !ok:
		first = url.User(secret).String() + "@" + first
	case strings.Contains(user, ":"):
		return "", errors.New("--password: the URL already contains a password")
	default:
		name, err := url.PathUnescape(user)
		if err != nil {
			return "", err
		}
		first = url.UserPassword(name, secret).String() + "@" + host
	}
	raw = scheme + "://" + first
	if several {
		raw += "," + others
	}
	if hasQuery {
		raw += "?" + query
	}
	return raw, nil
}

// withWholePaths returns a URL whose files are found from every directory.
func withWholePaths(raw string) (string, error) {
	address, query, ok := strings.Cut(raw, "?")
	if !ok {
		return raw, nil
	}
	parameters := strings.Split(query, "&")
	for i, p := range parameters {
		name, value, _ := strings.Cut(p, "=")
		if !slices.Contains([]string{"creds", "nkey", "tlsca", "tlscert", "tlskey"}, name) {
			continue
		}
		path, err := url.QueryUnescape(value)
		if err != nil {
			return "", err
		}
		if path == "" || filepath.IsAbs(path) {
			continue
		}
		if path, err = filepath.Abs(path); err != nil {
			return "", err
		}
		parameters[i] = name + "=" + strings.ReplaceAll(url.QueryEscape(path), "%2F", "/")
	}
	return address + "?" + strings.Join(parameters, "&"), nil
}

// contextInfo is a context, or a place, in printable form: without secrets.
type contextInfo struct {
	Name  string `json:"name,omitempty"`
	InUse bool   `json:"inUse,omitempty"`
	URL   string `json:"url"`
	HTTP  string `json:"http,omitempty"`
	User  string `json:"user,omitempty"`
	About string `json:"about,omitempty"`
	Said  string `json:"from,omitempty"`
}

func listContexts(output string, s Streams) error {
	all, err := loadContexts()
	if err != nil {
		return err
	}
	list := []contextInfo{}
	for _, name := range all.names() {
		c := all.Contexts[name]
		list = append(list, contextInfo{Name: name, InUse: name == all.Current, URL: redacted(c.URL), HTTP: redacted(c.HTTP), About: c.About})
	}
	if output == "json" {
		return printJSON(s.Out, list)
	}
	if len(list) == 0 {
		fmt.Fprintf(s.Err, "there are no contexts: hark context add NAME URL makes one; without any, %s is used\n", defaultURL)
		return nil
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 3, ' ', 0)
	for _, c := range list {
		mark := " "
		if c.InUse {
			mark = "*"
		}
		fmt.Fprintf(w, "%s %s\t%s\t%s\n", mark, c.Name, c.URL, c.About)
	}
	return w.Flush()
}

func showPlace(f *brokerFlags, output string, s Streams) error {
	p, err := f.place()
	if err != nil {
		return err
	}
	c := contextInfo{URL: redacted(p.URL), HTTP: p.HTTP, User: p.User, Said: p.Said}
	if output == "json" {
		return printJSON(s.Out, c)
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 3, ' ', 0)
	for _, line := range [][2]string{{"messages", c.URL}, {"HTTP", c.HTTP}, {"user", c.User}, {"from", c.Said}} {
		if line[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
		}
	}
	return w.Flush()
}
