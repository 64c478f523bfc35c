package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/harkbus/hark/broker"
)

var serveCommand = command{
	name:  "serve",
	about: "run a broker",
	long: `Every NATS client is a client of the broker, and so is hark.Open with the URL that
it prints. The configuration, hark.yaml, declares stored topics, routes and users.
Each setting below is also a key of that file and an environment variable: a flag
overrides a variable, which overrides the file.

SIGINT and SIGTERM stop it once the messages it has taken are done; a second signal
stops it at once. SIGHUP reads the configuration again: topics, routes and users
change all together, or not at all if it has an error.`,
	setup: func(fs *flag.FlagSet) action {
		file := fs.String("config", "", "read the configuration from this `file`, or from none if it is - (default hark.yaml, if it exists; HARK_CONFIG)")
		check := fs.Bool("check", false, "only check the configuration, and report errors")
		output := outputFlag(fs, "text", "json")
		flags := map[string]string{}
		for _, s := range broker.Settings() {
			fs.Var(&settingFlag{s, flags}, s.Flag, usageOf(s))
		}
		return func(ctx context.Context, _ []string, s Streams) error {
			source := broker.Source{File: configFile(*file), Getenv: os.Getenv, Flags: flags}
			cfg, err := broker.Load(source)
			if *check {
				return checked(err, unknownVariables(), *output, s)
			}
			if err != nil {
				return configError(err)
			}
			return serve(ctx, cfg, source, *output, s)
		}
	},
}

// configFault is a fault of a configuration in printable form.
type configFault struct {
	Where  string `json:"where,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Key    string `json:"key,omitempty"`
	Text   string `json:"text"`
}

func configFaults(ps broker.Problems) []configFault {
	faults := []configFault{}
	for _, p := range ps {
		faults = append(faults, configFault{p.Where, p.Line, p.Column, p.Key, p.Text})
	}
	return faults
}

// checked prints the result of checking a configuration: err is nil if it is valid,
// and ignored lists the variables without effect.
func checked(err error, ignored broker.Problems, output string, s Streams) error {
	if output == "json" {
		var ps broker.Problems
		faults := []configFault{}
		if errors.As(err, &ps) {
			faults = configFaults(ps)
		} else if err != nil {
			faults = append(faults, configFault{Text: err.Error()})
		}
		if err := printJSON(s.Out, map[string]any{"valid": err == nil, "faults": faults, "ignored": configFaults(ignored)}); err != nil {
			return err
		}
	}
	for _, p := range ignored {
		if output == "text" {
			fmt.Fprintf(s.Err, "ignored: %s\n", p)
		}
	}
	switch {
	case err != nil:
		return configError(err)
	case output == "text":
		_, err = fmt.Fprintln(s.Out, "the configuration is valid")
	}
	return err
}

// serving is where a broker listens, in printable form; what is off is left out.
type serving struct {
	Messages  string `json:"messages,omitempty"` // a URL for hark.Open; empty on an outside engine
	HTTP      string `json:"http,omitempty"`     // host and port, like the fields below
	MQTT      string `json:"mqtt,omitempty"`
	WebSocket string `json:"websocket,omitempty"`
}

// started prints that a broker is running, and where.
func started(b *broker.Broker, output string, s Streams) error {
	if output != "json" {
		_, err := fmt.Fprintln(s.Out, b.Summary())
		return err
	}
	text := func(a net.Addr) string {
		if a == nil {
			return ""
		}
		return a.String()
	}
	at := serving{HTTP: text(b.HTTPAddr()), MQTT: b.MQTTAddr(), WebSocket: b.WebSocketAddr()}
	if a := text(b.Addr()); a != "" {
		at.Messages = "hark://" + a
	}
	return printJSON(s.Out, at)
}

// unknownVariables returns the environment variables that neither the broker nor a
// command knows.
func unknownVariables() broker.Problems {
	return broker.UnknownVariables(os.Environ(), []string{
		"HARK_CONFIG", "HARK_URL", "HARK_HTTP_URL", "HARK_CONTEXT", "HARK_CONTEXTS", "HARK_TOKEN", "HARK_REQUEST",
		"HARK_REQUIRE", "HARK_LONG", "HARK_UPDATE", "HARK_TEST_NATS", "HARK_NATS_SERVER", "HARK_KILLS", // used by the tests of this project
	})
}

// configFile returns the configuration file to read.
func configFile(flag string) string {
	if flag == "" {
		return os.Getenv("HARK_CONFIG")
	}
	return flag
}

// configError lists faults one below the other.
func configError(err error) error {
	var ps broker.Problems
	if !errors.As(err, &ps) {
		return err
	}
	return fmt.Errorf("%s in the configuration:\n%w", plural(len(ps), "fault", "faults"), err)
}

// settingFlag is a flag that only records the given value.
type settingFlag struct {
	broker.Setting
	given map[string]string
}

// Set implements flag.Value.
func (f *settingFlag) Set(s string) error { f.given[f.Flag] = s; return nil }

// String implements flag.Value.
func (f *settingFlag) String() string { return f.Default }

// IsBoolFlag makes the bare flag mean true.
func (f *settingFlag) IsBoolFlag() bool { return f.Bool }

func usageOf(s broker.Setting) string {
	if s.Bool {
		return s.Doc + " (" + s.Env + ")"
	}
	value := strings.NewReplacer(" or ", "|", " ", "-").Replace(s.Value)
	return fmt.Sprintf("`%s`: %s (%s)", value, s.Doc, s.Env)
}

// serve runs a broker until ctx ends.
func serve(ctx context.Context, cfg *broker.Config, source broker.Source, output string, s Streams) error {
	log := newLogger(cfg.Log, s.Err)
	for _, p := range unknownVariables() {
		log.Warn("a variable is ignored", "variable", p.Where, "reason", p.Text)
	}
	b, err := broker.New(cfg, log)
	if err != nil {
		return configError(err)
	}
	b.ReloadFrom(func() (*broker.Config, error) { return broker.Load(source) })
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	if err := b.Start(ctx); err != nil {
		return err
	}
	if err := started(b, output, s); err != nil {
		return errors.Join(err, b.Stop(context.WithoutCancel(ctx)))
	}
	for {
		select {
		case <-ctx.Done():
			return undone(b.Stop(context.WithoutCancel(ctx)))
		case <-reload:
			next, err := broker.Load(source)
			if err == nil {
				err = b.Reload(ctx, next)
			}
			if err != nil {
				notReloaded(cfg.Log, log, s.Err, err)
			}
		}
	}
}

// undoneError says that a broker has stopped before everything was done. Whatever
// error it wraps, it does not mean that a broker does not answer.
type undoneError struct{ error }

// undone turns the error of a broker that ran out of time to stop into an
// undoneError.
func undone(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return undoneError{fmt.Errorf("stop_timeout passed before all work was done: messages from stored topics are handled after the next start, the rest is lost\n%w", err)}
}

// notReloaded reports why a reload has changed nothing, one fault per line, or as
// log lines if the log is JSON.
func notReloaded(c broker.LogConfig, log *slog.Logger, out io.Writer, err error) {
	const message = "the configuration was not reloaded, and nothing was changed"
	var ps broker.Problems
	switch {
	case c.Format == "json" && errors.As(err, &ps):
		for _, p := range ps {
			log.Error(message, "fault", p.Error())
		}
	case c.Format == "json":
		log.Error(message, "err", err)
	default:
		log.Error(message)
		fmt.Fprintln(out, configError(err))
	}
}

func newLogger(c broker.LogConfig, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.SlogLevel()}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
