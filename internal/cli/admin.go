package cli

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// adminFlags are the flags of commands that administer a broker.
type adminFlags struct {
	broker *brokerFlags
	output *string
}

// newAdminFlags declares --http with the flags that go with it, and --output.
func newAdminFlags(fs *flag.FlagSet) *adminFlags {
	return &adminFlags{httpFlags(fs), outputFlag(fs, "pretty", "json")}
}

// json reports whether to print JSON.
func (f *adminFlags) json() bool { return *f.output == "json" }

// admin is a client of a broker's admin API.
type admin struct {
	place place
	http  *http.Client
	notes io.Writer // for saying what it waits for, if that takes long
}

func (f *adminFlags) open(notes io.Writer) (*admin, error) {
	p, err := f.broker.place()
	if err != nil {
		return nil, err
	}
	client, err := p.client()
	if err != nil {
		return nil, err
	}
	return &admin{p, client, notes}, nil
}

// refusal is the API's reason for not doing something.
type refusal struct {
	Status int
	Title  string
	Detail string
	Hint   string
}

// Error implements error.
func (r *refusal) Error() string {
	if r.Hint != "" {
		return r.Detail + "; " + r.Hint
	}
	return r.Detail
}

// about returns the refusal in terms of the command line: it begins with the flag, where
// the API names the parameter of that name.
func (r *refusal) about(fs *flag.FlagSet) *refusal {
	if name, _, ok := strings.Cut(r.Detail, ":"); ok && fs.Lookup(name) != nil {
		return &refusal{r.Status, r.Title, "--" + r.Detail, r.Hint}
	}
	return r
}

// answerTimeout is how long a request that is answered at once may take: somewhat
// longer than a broker allows it.
const answerTimeout = 40 * time.Second

// send sends a request, and returns the response if the request succeeded.
func (a *admin) send(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	r, err := a.place.request(ctx, method, path)
	if err != nil {
		return nil, err
	}
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/json")
	}
	w := waitFor(ctx, a.notes, a.place.HTTP)
	var res *http.Response
	err = w.attempts(ctx, func() error {
		if body != nil {
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		}
		res, err = a.http.Do(r)
		return err
	})
	w.end()
	if err != nil {
		if ctx.Err() != nil {
			if err = context.Cause(ctx); !errors.Is(err, errSilent) {
				return nil, err // the user has interrupted it
			}
		}
		return nil, fmt.Errorf("%w; hark serve starts a broker; --http or HARK_HTTP_URL says where one is", advised(err))
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, a.refusal(res)
}

// advised adds what to do about it to the error of a request, where the error does
// not say enough.
func advised(err error) error {
	var stranger x509.UnknownAuthorityError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w; nobody listens there", err)
	case errors.As(err, &stranger):
		return fmt.Errorf("%w; ?tlsca=FILE in the URL for messages says whose certificates to trust, for HTTP too", err)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%w; the server has no TLS: want http:// instead of https://", err)
	case errors.Is(err, errSilent):
		return fmt.Errorf("%w; something listens there that says nothing: is that the HTTP API of a hark broker?", err)
	}
	return err
}

// maxRefusal is how many bytes of a refusal are read.
const maxRefusal = 64 << 10

// refusal reads the reason from a response that is no success.
func (a *admin) refusal(res *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxRefusal)) // the part that was read says enough
	r := &refusal{}
	if res.StatusCode == http.StatusBadRequest && strings.Contains(string(text), "HTTP request to an HTTPS server") {
		return fmt.Errorf("%s wants TLS: give its URL with https://", a.place.HTTP)
	}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if media != "application/problem+json" || json.Unmarshal(text, r) != nil {
		return fmt.Errorf("%s answered %s: is that the HTTP API of a hark broker?", a.place.HTTP, res.Status)
	}
	if res.StatusCode == http.StatusNotFound {
		return nothingError{r}
	}
	switch {
	case res.StatusCode != http.StatusUnauthorized:
	case a.place.Password == "":
		r.Hint = "put the user and the token into the URL, such as --url hark://NAME:TOKEN@HOST, or into HARK_TOKEN, or use a context"
	default:
		r.Hint = "they are from the URL (" + a.place.Said + "), or from HARK_TOKEN if it has none; hark doctor finds out more"
	}
	return r
}

// get requests and decodes JSON.
func (a *admin) get(ctx context.Context, path string, query url.Values, into any) error {
	return a.do(ctx, http.MethodGet, path, query, nil, into)
}

// do sends a request and decodes the response, unless into is nil.
func (a *admin) do(ctx context.Context, method, path string, query url.Values, body, into any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("%s: %w", a.place.HTTP, errSilent))
	defer cancel()
	res, err := a.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fmt.Errorf("the answer of %s: %w; is that the HTTP API of a hark broker?", a.place.HTTP, err)
	}
	return nil
}

// doText is do that also returns the response as it came, for --output json.
func (a *admin) doText(ctx context.Context, method, path string, query url.Values, body, into any) (text json.RawMessage, err error) {
	if err = a.do(ctx, method, path, query, body, &text); err == nil {
		err = json.Unmarshal(text, into)
	}
	return text, err
}

// each calls f for each entry of a list, page by page, until there were most; 0
// means all.
func (a *admin) each(ctx context.Context, path string, query url.Values, most int, f func(entry json.RawMessage) error) error {
	if query == nil {
		query = url.Values{}
	}
	for n := 0; ; {
		if limit := most - n; most > 0 && query.Has("limit") || most > 0 && limit < 100 {
			query.Set("limit", strconv.Itoa(min(limit, 1000)))
		}
		var page struct {
			Items []json.RawMessage
			Next  string
		}
		if err := a.get(ctx, path, query, &page); err != nil {
			return err
		}
		for _, entry := range page.Items {
			if err := f(entry); err != nil {
				return err
			}
			if n++; n == most {
				return nil
			}
		}
		if page.Next == "" {
			return nil
		}
		query.Set("after", page.Next)
	}
}

// lines calls f for each line of a streamed response of JSON lines.
func (a *admin) lines(ctx context.Context, path string, body any, f func(line json.RawMessage) error) error {
	res, err := a.send(ctx, http.MethodPost, path, nil, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for in := json.NewDecoder(res.Body); ; {
		var line json.RawMessage
		switch err := in.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("the broker has ended the answer: %w", err)
		}
		if err := f(line); err != nil {
			return err
		}
	}
}

// adminPath joins the parts of a path of the API.
func adminPath(parts ...string) string {
	for i, p := range parts {
		if parts[i] = url.PathEscape(p); p == "." || p == ".." { // the server takes no dots for a name
			parts[i] = strings.ReplaceAll(p, ".", "%2E")
		}
	}
	return "/v1/admin/" + strings.Join(parts, "/")
}

// adminAction is an action with a client of the API.
type adminAction func(ctx context.Context, a *admin, words []string, s Streams) error

// administer returns an action that runs do with between least and most words.
func (f *adminFlags) administer(least, most int, want string, do adminAction) action {
	return func(ctx context.Context, words []string, s Streams) error {
		if len(words) < least || most >= 0 && len(words) > most {
			return usageError{fmt.Errorf("want %s, got %s", want, plural(len(words), "word", "words"))}
		}
		if slices.Contains(words[:least], "") {
			return usageError{fmt.Errorf("want %s, got an empty word", want)}
		}
		a, err := f.open(s.Err)
		if err != nil {
			return err
		}
		defer a.http.CloseIdleConnections()
		return interruptible(ctx, func(ctx context.Context) error {
			err := do(ctx, a, words, s)
			if err != nil && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		})
	}
}

// patternQuery is the query for a list whose command has a pattern as its only word, or
// nothing.
func patternQuery(words []string) url.Values {
	query := url.Values{}
	if len(words) > 0 {
		query.Set("pattern", words[0])
	}
	return query
}

// seen returns what a list holds that answers every user, with what the user may
// administer.
func (a *admin) seen(what string) string {
	if a.place.Password == "" {
		return what
	}
	return what + " that this user may administer"
}

// list prints the entries of a list, as lines of JSON or as a table with a row for
// each. what says what they are, in the plural.
func list[T any](ctx context.Context, f *adminFlags, a *admin, s Streams, path string, query url.Values, most uint, what string, head []string, row func(v *T) []string) error {
	each := func(do func(entry json.RawMessage) error) error { return a.each(ctx, path, query, int(most), do) }
	return listEach(f, s, each, what, head, row)
}

// listEach is list for the entries that each passes on.
func listEach[T any](f *adminFlags, s Streams, each func(do func(entry json.RawMessage) error) error, what string, head []string, row func(v *T) []string) error {
	if f.json() {
		return each(func(entry json.RawMessage) error {
			_, err := fmt.Fprintf(s.Out, "%s\n", entry)
			return err
		})
	}
	t := newTable(head...)
	err := each(func(entry json.RawMessage) error {
		v := new(T)
		if err := json.Unmarshal(entry, v); err != nil {
			return err
		}
		t.add(row(v)...)
		return nil
	})
	if err != nil {
		return err
	}
	if len(t.rows) == 0 {
		fmt.Fprintln(s.Err, "there are no "+what)
		return nil
	}
	return t.print(s.Out)
}

// show prints the object that answers a request, see describe.
func show[T any](ctx context.Context, f *adminFlags, a *admin, s Streams, method, path string, query url.Values, fields func(v *T) [][2]string) error {
	var text json.RawMessage
	if err := a.do(ctx, method, path, query, nil, &text); err != nil {
		return err
	}
	return describe(f, s, text, fields)
}

// describe prints one object, as a line of JSON or as names and values.
func describe[T any](f *adminFlags, s Streams, text json.RawMessage, fields func(v *T) [][2]string) error {
	if f.json() {
		_, err := fmt.Fprintf(s.Out, "%s\n", bytes.TrimSpace(text))
		return err
	}
	v := new(T)
	if err := json.Unmarshal(text, v); err != nil {
		return err
	}
	t := newTable()
	for _, field := range fields(v) {
		if field[1] != "" {
			t.add(field[0], field[1])
		}
	}
	return t.print(s.Out)
}

// done prints what was done, or the answer itself if JSON is asked for.
func (f *adminFlags) done(s Streams, text json.RawMessage, format string, args ...any) error {
	if f.json() {
		if text == nil {
			return nil
		}
		_, err := fmt.Fprintf(s.Out, "%s\n", bytes.TrimSpace(text))
		return err
	}
	_, err := fmt.Fprintf(s.Out, format+"\n", args...)
	return err
}
