package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/harkbus/hark/broker"
	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/release"
)

var doctorCommand = command{
	name: "doctor", about: "find out what is wrong and what to do about it",
	long: `It checks the contexts, the connection to the broker, what the broker can do and what
its user may do, and the releases and clocks of both. It also checks the configuration
and the data in this directory, if the address of the broker is on this machine, or
those that --config and --data name. It exits with 1 if something is wrong; warnings
do not count.`,
	setup: func(fs *flag.FlagSet) action {
		f := httpFlags(fs)
		data := fs.String("data", "", "data `directory` of a broker; without it ./hark-data, if it exists and the broker is on this machine")
		config := fs.String("config", "", "configuration `file` of a broker (HARK_CONFIG); without it hark.yaml, if it exists and the broker is on this machine")
		topic := fs.String("topic", "hark.doctor", "`topic` that the user may publish and subscribe to; nobody else should listen")
		output := outputFlag(fs, "text", "json")
		return func(ctx context.Context, _ []string, s Streams) error {
			d := &doctor{flags: f, data: *data, config: *config, topic: *topic, notes: s.Err, dial: (&net.Dialer{}).DialContext}
			if *output == "text" {
				d.tell = func(f finding) { fmt.Fprint(s.Out, f) }
			}
			d.examine(ctx)
			if *output == "json" {
				if err := printJSON(s.Out, d.findings); err != nil {
					return err
				}
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			wrong := 0
			for _, f := range d.findings {
				if f.State == "wrong" {
					wrong++
				}
			}
			if wrong > 0 {
				return fmt.Errorf("%s wrong", plural(wrong, "thing is", "things are"))
			}
			return nil
		}
	},
}

// finding is what the doctor has found out about one thing.
type finding struct {
	What  string `json:"what"`
	State string `json:"state"` // ok, warning or wrong
	Text  string `json:"text"`
	To    string `json:"do,omitempty"` // what to do about it
}

func (f finding) String() string {
	s := fmt.Sprintf("%-8s %-12s %s\n", f.State, f.What, f.Text)
	if f.To != "" {
		s += fmt.Sprintf("%-21s → %s\n", "", f.To)
	}
	return s
}

// doctor is one run of hark doctor.
type doctor struct {
	flags               *brokerFlags
	data, config, topic string
	notes               io.Writer
	dial                func(ctx context.Context, network, address string) (net.Conn, error)
	tell                func(finding) // may be nil
	findings            []finding
}

func (d *doctor) found(what, state, text, to string) {
	f := finding{what, state, text, to}
	d.findings = append(d.findings, f)
	if d.tell != nil {
		d.tell(f)
	}
}

func (d *doctor) ok(what, format string, args ...any) {
	d.found(what, "ok", fmt.Sprintf(format, args...), "")
}

func (d *doctor) examine(ctx context.Context) {
	d.examineContexts()
	p, err := d.flags.place()
	here := err != nil || isLoopback(p.Host)
	d.examineConfig(here)
	d.examineData(here)
	if err != nil {
		d.found("broker", "wrong", err.Error(), "say where the broker is with --url, HARK_URL or hark context use")
		return
	}
	d.ok("broker", "%s (%s)", redacted(p.URL), p.Said)
	if !d.examinePort(ctx, p) {
		return
	}
	conn, err := p.connect(ctx, d.notes)
	if err != nil {
		d.found("connection", "wrong", strings.TrimSuffix(err.Error(), askDoctor), howToConnect(err))
		return
	}
	defer func() {
		if err := closed(ctx, conn); err != nil {
			d.found("connection", "warning", "closing: "+err.Error(), "run it again: if it comes back, the log of the broker says more")
		}
	}()
	d.examineEngine(conn)
	d.examineRoundTrip(ctx, conn)
	d.examineHTTP(ctx, p)
}

// howToConnect says what to do about a connection that failed.
func howToConnect(err error) string {
	if errors.Is(err, natsdriver.ErrNoLeader) {
		return "start the other servers of the cluster, or wait some seconds if they run; their logs say what they cannot reach"
	}
	return "look at the user and the password or token in the URL, and at the certificates that it names; the log of the broker says more"
}

func (d *doctor) examineContexts() {
	path, err := contextsPath()
	if err != nil {
		return // such a user has no contexts
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		d.found("contexts", "wrong", err.Error(), "make "+path+" yours to read")
		return
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		d.found("contexts", "warning", fmt.Sprintf("others may read %s (mode %04o), which may have passwords in it", path, info.Mode().Perm()), "chmod 600 "+path)
	}
	all, err := loadContexts()
	if err != nil {
		d.found("contexts", "wrong", err.Error(), "correct or remove the file")
		return
	}
	d.ok("contexts", "%s in %s", plural(len(all.Contexts), "context", "contexts"), path)
}

// isLoopback reports whether a host is this machine.
func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// examineConfig checks the configuration that is named, or if the broker is here the
// one that it reads by default.
func (d *doctor) examineConfig(here bool) {
	file := configFile(d.config)
	if file == "" {
		if _, err := os.Stat(broker.DefaultFile); err != nil || !here {
			return
		}
		file = broker.DefaultFile
	}
	if _, err := broker.Load(broker.Source{File: file, Getenv: os.Getenv}); err != nil {
		d.found("config", "wrong", configError(err).Error(), "hark serve --check --config "+file+" says it again")
		return
	}
	d.ok("config", "%s is valid", file)
}

const (
	// defaultData is the data directory of a broker by default.
	defaultData = "./hark-data"
	// spare is how many bytes of a disk should be free.
	spare = 1 << 30
)

// examineData checks the directory that is named, or if the broker is here the default
// one.
func (d *doctor) examineData(here bool) {
	dir := d.data
	if dir == "" {
		dir = defaultData
		if _, err := os.Stat(dir); err != nil || !here {
			return
		}
	}
	probe, err := os.CreateTemp(dir, ".hark-doctor-*")
	if err != nil {
		d.found("data", "wrong", err.Error(), "let the user that runs the broker write to "+dir)
		return
	}
	name := probe.Name()
	if err := errors.Join(probe.Close(), os.Remove(name)); err != nil {
		d.found("data", "wrong", err.Error(), "look at the file system of "+dir)
		return
	}
	held := "nobody has it open"
	if text, err := os.ReadFile(filepath.Join(dir, "hark.lock")); err == nil && len(strings.TrimSpace(string(text))) > 0 {
		held = "held by " + strings.TrimSpace(string(text))
	}
	d.ok("data", "%s can be written; %s", dir, held)
	free, err := freeSpace(dir)
	d.disk(dir, free, err)
}

// disk judges whether there is enough free space for a directory.
func (d *doctor) disk(dir string, free uint64, err error) {
	switch {
	case err != nil:
		d.found("disk", "warning", "how much is free cannot be told: "+err.Error(), "look with df, or what this system has for it: a broker with a full disk takes nothing")
	case free < spare:
		d.found("disk", "warning", fmt.Sprintf("%d MiB are free for %s", free>>20, dir), "make room, or set limits.disk and the retention of topics in hark.yaml")
	default:
		d.ok("disk", "%d GiB are free", free>>30)
	}
}

// examinePort checks whether a broker listens where it should.
func (d *doctor) examinePort(ctx context.Context, p place) bool {
	if p.Host == "" { // file: and similar
		return true
	}
	port := p.Port
	if port == "" {
		port = map[bool]string{true: defaultPort, false: "4222"}[strings.HasPrefix(p.URL, "hark:")]
	}
	address := net.JoinHostPort(p.Host, port)
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	start := time.Now()
	conn, err := d.dial(ctx, "tcp", address)
	var noHost *net.DNSError
	switch {
	case errors.As(err, &noHost):
		d.found("port", "wrong", err.Error(), "look at the name of the host in the URL")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		d.found("port", "wrong", address+" does not answer", "look for a firewall between here and there")
	case err != nil && ctx.Err() == nil:
		d.found("port", "wrong", err.Error(), "nothing listens there: start hark serve, or say with --url where it is")
	}
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return true
	}
	line, err := bufio.NewReaderSize(conn, 4096).ReadString('\n')
	if !strings.HasPrefix(line, "INFO ") && !strings.Contains(p.URL, "tlsfirst") {
		d.found("port", "wrong", fmt.Sprintf("another program has %s: it is no broker (%.40q, %v)", address, line, err), "hark serve --listen takes another port; --url says where the broker is")
		return false
	}
	d.ok("port", "%s answers within %v", address, time.Since(start).Round(100*time.Microsecond))
	return true
}

// examineEngine reports what the broker can do.
func (d *doctor) examineEngine(conn driver.Conn) {
	info := conn.Info()
	d.ok("connection", "%s %s", info.Engine, info.Server)
	if !info.Has(driver.Stored) {
		d.found("jetstream", "wrong", "JetStream is off, or this user may not use it: no stored topics, channels, values and latches", "start the server with JetStream (nats-server -js), use hark serve, or let the user")
		return
	}
	var missing []string
	for _, c := range []driver.Capability{driver.Dedup, driver.Delay, driver.KeyOrder, driver.Latches} {
		if !info.Has(c) {
			missing = append(missing, string(c))
		}
	}
	if len(missing) > 0 {
		d.found("server", "warning", fmt.Sprintf("server %s cannot do: %s", info.Server, strings.Join(missing, ", ")), "run a newer server; hark serve has one inside")
		return
	}
	d.ok("jetstream", "topics are stored, messages delayed, keys kept in order")
}

// examineRoundTrip checks whether the user may publish and subscribe.
func (d *doctor) examineRoundTrip(ctx context.Context, conn driver.Conn) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := func() error {
		topic, err := conn.OpenTopic(ctx, driver.TopicConfig{Name: d.topic})
		if err != nil {
			return err
		}
		sub, err := topic.Subscribe(ctx, driver.SubscribeConfig{Window: 16})
		if err != nil {
			return err
		}
		defer func() { _ = sub.Close(context.WithoutCancel(ctx)) }() // the connection is closed right after
		start := time.Now()
		if err := topic.Publish(ctx, []*driver.Message{withData(driver.Message{}, []byte(`"are you well?"`))}); err != nil {
			return err
		}
		if _, err := sub.Receive(ctx, 1); err != nil {
			return err
		}
		d.ok("messages", "there and back in %v on %s", time.Since(start).Round(10*time.Microsecond), d.topic)
		return nil
	}()
	if err != nil {
		d.found("messages", "wrong", fmt.Sprintf("nothing comes back on %s: %v", d.topic, err), "the user may not publish or subscribe there: give it a topic with --topic, or permissions in hark.yaml")
	}
}

// maxSkew is how far apart the clocks may be; HTTP has a resolution of a second.
const maxSkew = 3 * time.Second

// examineHTTP checks the HTTP API, and the broker's clock.
func (d *doctor) examineHTTP(ctx context.Context, p place) {
	if p.HTTP == "" && p.Host == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := d.get(ctx, p, "/readyz", nil)
	if err != nil {
		d.found("http", "warning", err.Error(), "--http says where the HTTP API is; a NATS server that is no hark broker has none")
		return
	}
	switch resp.StatusCode {
	case http.StatusOK:
		d.ok("http", "%s is ready", p.HTTP)
	case http.StatusServiceUnavailable:
		d.found("http", "wrong", fmt.Sprintf("%s/readyz: %s", p.HTTP, resp.Status), "the log of the broker says why it is not ready")
	default:
		d.found("http", "warning", fmt.Sprintf("%s/readyz: %s, which a broker does not answer", p.HTTP, resp.Status), "another program may have the port: hark serve --http takes another one, and --http says here where it is; a broker that was started with http: off has none")
		return
	}
	d.examineVersion(ctx, p)
	there, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return // the response has no date
	}
	if skew := time.Until(there); skew > maxSkew || skew < -maxSkew {
		d.found("clock", "warning", fmt.Sprintf("the clock of the broker is %v away from this one", skew.Round(time.Second)), "set them by NTP: delays, TTL and --from TIME go by clocks")
	} else {
		d.ok("clock", "as the broker's, within %v", maxSkew)
	}
}

// get calls the HTTP API, and decodes JSON into the value that into points to,
// unless that is nil.
func (d *doctor) get(ctx context.Context, p place, path string, into any) (*http.Response, error) {
	r, err := p.request(ctx, http.MethodGet, path)
	if err != nil {
		return nil, err
	}
	client, err := p.client()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if into != nil {
		err = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(into)
	}
	return resp, err
}

// examineVersion compares the release of the broker with that of this program.
func (d *doctor) examineVersion(ctx context.Context, p place) {
	var there struct{ Version string }
	resp, err := d.get(ctx, p, "/healthz", &there)
	if err != nil || resp.StatusCode != http.StatusOK {
		there.Version = "" // no hark broker, or one that does not tell its version
	}
	d.compare(there.Version, release.Version())
}

// compare checks whether two releases work together.
func (d *doctor) compare(there, here string) {
	switch {
	case there == "":
		d.found("version", "warning", "the broker does not say its version, this program is hark "+here, "a broker older than this program does not: run both from one release; hark version prints that of a program")
	case there == here:
		d.ok("version", "the broker and this program are hark %s", here)
	default:
		do := "run both from one release; hark version prints that of a program"
		if released.MatchString(there) {
			do = "install that of the broker here: go install github.com/harkbus/hark/cmd/hark@" + there + "; or start the broker again with this program"
		}
		d.found("version", "warning", fmt.Sprintf("the broker is hark %s, this program is hark %s: one may not know what the other does", there, here), do)
	}
}

// released matches the versions of releases.
var released = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)
