package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/harkbus/hark/broker"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/internal/names"
)

var routeCommand = command{
	name:  "route",
	about: "work with the routes of a broker",
	subs: []command{routeListCommand, routeShowCommand, {
		name: "test", about: "show where messages would go, without a broker",
		long: `It reads a message from each line of the input, as hark sub prints them:

  {"topic": "orders.placed", "key": "ada", "headers": {}, "data": {"total": 7}}

CloudEvents in JSON work too, if they have a topic. With --topic each line is the
data of a message on that topic. It prints what the routes of the configuration do
with each message, and at the end how many messages each route takes. For a route that
takes none it says why its filter could not be evaluated, if that is the reason.`,
		setup: func(fs *flag.FlagSet) action {
			file := fs.String("config", "", "read the configuration from this `file` (default hark.yaml; HARK_CONFIG)")
			topic := fs.String("topic", "", "each line is the data of a message of this `topic`")
			output := outputFlag(fs, "text", "json")
			return func(ctx context.Context, _ []string, s Streams) error {
				if *topic != "" && names.Check(*topic) != nil {
					return usageError{fmt.Errorf("--topic: %w", names.Check(*topic))}
				}
				path := configFile(*file)
				if path == "" {
					path = broker.DefaultFile
				}
				cfg, err := broker.Load(broker.Source{File: path, Getenv: os.Getenv})
				if err != nil {
					return configError(err)
				}
				router, err := broker.NewRouter(cfg)
				if err != nil {
					return configError(err)
				}
				return (&routeTest{router: router, topic: *topic, json: *output == "json", taken: map[string]int{}, undecided: map[string]string{}}).run(ctx, cfg, s)
			}
		},
	}},
}

// routeTest is one run of hark route test.
type routeTest struct {
	router *broker.Router
	topic  string
	json   bool
	taken  map[string]int // counts of messages, by route
	// undecided says of a route which line its filter could not be evaluated for at
	// first, and why.
	undecided map[string]string
	nowhere   int
	read      int
}

// routed is the outcome for one line with --output json.
type routed struct {
	Line   int               `json:"line"`
	Topic  string            `json:"topic"`
	ID     string            `json:"id,omitempty"`
	Routes []broker.Decision `json:"routes"`
}

func (t *routeTest) run(ctx context.Context, cfg *broker.Config, s Streams) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	in := bufio.NewReaderSize(newInput(ctx, s), 64<<10)
	out := bufio.NewWriter(s.Out)
	bad, err := 0, error(nil)
	for n := 1; err == nil; n++ {
		var line []byte
		var tooLong bool
		line, tooLong, err = readLine(in)
		if line = bytes.TrimSpace(line); len(line) == 0 && !tooLong {
			continue
		}
		lineErr := fmt.Errorf("longer than %d bytes", maxLine)
		if !tooLong {
			lineErr = t.line(n, line, out)
		}
		if lineErr != nil {
			bad++
			fmt.Fprintf(s.Err, "line %d: %v\n", n, lineErr)
		}
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if err != io.EOF {
		return err
	}
	t.summarise(cfg, s)
	if bad > 0 {
		return fmt.Errorf("%s could not be read", plural(bad, "line", "lines"))
	}
	return nil
}

// line prints what happens to a message.
func (t *routeTest) line(n int, line []byte, out io.Writer) error {
	e := &broker.Event{}
	switch {
	case t.topic == "":
		if err := json.Unmarshal(line, e); err != nil {
			return err
		}
		if e.Topic() == "" {
			return errors.New(`no "topic"; with --topic the line is the data`)
		}
		if err := names.Check(e.Topic()); err != nil {
			return err
		}
	default:
		e.Message = &driver.Received{Topic: t.topic, Message: driver.Message{Data: line}}
	}
	t.read++
	decisions := t.router.Decide(e)
	reached := false
	for _, d := range decisions {
		if len(d.Targets) > 0 {
			t.taken[d.Route]++
			reached = true
		}
	}
	if !reached {
		t.nowhere++
	}
	for route, err := range t.router.Undecided(e) {
		if t.undecided[route] == "" {
			t.undecided[route] = fmt.Sprintf("line %d: %s", n, strings.TrimPrefix(err.Error(), "filter: "))
		}
	}
	if t.json {
		if decisions == nil {
			decisions = []broker.Decision{}
		}
		return printJSON(out, routed{n, e.Topic(), e.ID(), decisions})
	}
	_, err := fmt.Fprintf(out, "%d %s → %s\n", n, e.Topic(), described(decisions))
	return err
}

// described describes decisions of routes in words.
func described(ds []broker.Decision) string {
	var parts []string
	for _, d := range ds {
		about := "route " + d.Route
		if d.Otherwise {
			about += ", otherwise"
		}
		if d.Move && len(d.Unstored) == 0 && len(d.Unresolved) == 0 {
			about += ", moved"
		}
		switch {
		case len(d.Targets) > 0:
			parts = append(parts, strings.Join(d.Targets, " ")+" ("+about+")")
		case d.SampledOut:
			parts = append(parts, "not in the sample ("+about+")")
		}
		for _, u := range d.Unresolved {
			parts = append(parts, "not "+u+" ("+about+")")
		}
		for _, target := range d.Unstored {
			parts = append(parts, "copied and not moved, because "+target+" is not declared under topics ("+about+")")
		}
	}
	if len(parts) == 0 {
		return "nowhere"
	}
	return strings.Join(parts, ", ")
}

func (t *routeTest) summarise(cfg *broker.Config, s Streams) {
	fmt.Fprintf(s.Err, "\n%s read\n", plural(t.read, "message", "messages"))
	for i, r := range cfg.Routes {
		name := r.Name
		if name == "" {
			name = fmt.Sprint(i + 1)
		}
		why := ""
		if t.taken[name] == 0 && t.undecided[name] != "" {
			why = "; its filter cannot be evaluated, " + t.undecided[name]
		}
		fmt.Fprintf(s.Err, "  %6d by route %s%s\n", t.taken[name], name, why)
	}
	fmt.Fprintf(s.Err, "  %6d nowhere\n", t.nowhere)
}
