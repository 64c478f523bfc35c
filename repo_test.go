package hark_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/harkbus/hark"

// importRule says what the packages below a directory may import besides the
// standard library. The most specific rule applies.
type importRule struct {
	folder  string
	imports []string // import paths, or prefixes of them that end in /
	why     string
}

var importRules = []importRule{
	{".", []string{module + "/driver", module + "/internal/exec", module + "/internal/feed", module + "/internal/names", module + "/internal/symbol"}, "the core is for everybody: the standard library, its own internals and the contract of engines, so that a user of it downloads nothing else"},
	{"internal", nil, "the core builds on it"},
	{"internal/feed", nil, "the engine knows nothing of what it carries"},
	{"internal/store", []string{"github.com/nats-io/nats-server/v2/", "github.com/minio/highwayhash", module + "/internal/filelock"}, "it is the server inside a process, for those who speak to it"},
	{"internal/cli", []string{module, module + "/broker", module + "/driver", module + "/driver/", module + "/internal/filelock", module + "/internal/lease", module + "/internal/names", module + "/internal/release", module + "/internal/spell", module + "/internal/timespan", module + "/filter", module + "/testdata", module + "/examples/", "github.com/coder/websocket", "golang.org/x/sys/unix", "golang.org/x/term"}, "the command is a client of the library and of the HTTP API like any other"},
	{"internal/filelock", []string{"golang.org/x/sys/windows"}, "it is about files"},
	{"internal/lease", []string{module + "/driver"}, "it knows the contract and nothing else"},
	{"internal/spell", nil, "it is about words"},
	{"internal/release", nil, "it reads what the linker wrote into the program"},
	{"internal/percent", nil, "it is about values of headers"},
	{"internal/timespan", nil, "it is about words"},
	{"broker", []string{module, module + "/driver", module + "/driver/natsdriver", module + "/filter", module + "/internal/", "github.com/coder/websocket", "github.com/goccy/go-yaml", "github.com/goccy/go-yaml/", "github.com/nats-io/", "github.com/prometheus/client_golang/", "golang.org/x/crypto/bcrypt"}, "it is the NATS server with what hark adds to it (docs/adr/0005-broker.md)"},
	{"cmd", []string{module + "/internal/cli"}, "a thin main"},
	{"testdata", nil, "data"},
	{"filter", []string{"cel.dev/"}, "filters work on messages of any origin, so they must not need the bus; CEL is parsed and checked by cel-go"},
	{"driver", nil, "the contract of engines depends on nothing"},
	{"driver/natsdriver", []string{module + "/driver", module + "/internal/names", module + "/internal/percent", "github.com/nats-io/nats.go", "github.com/nats-io/nats.go/"}, "an engine's package needs the contract and the engine's client; it knows neither the bus nor other engines"},
	{"driver/filedriver", []string{module + "/driver", module + "/driver/natsdriver", module + "/internal/disk", module + "/internal/store", "github.com/nats-io/"}, "it is the NATS engine with the server inside (docs/adr/0004-engines.md)"},
	{"driver/memdriver", []string{module + "/driver"}, "an engine knows the contract and nothing else"},
	{"driver/faults", []string{module + "/driver"}, "it is a connection around a connection, for any engine"},
	{"driver/drivertest", []string{module, module + "/driver", module + "/driver/drivertest/internal/", module + "/filter"}, "the suite speaks to engines through the bus only, and holds filters to the same answers over each"},
	{"driver/drivertest/internal", []string{module + "/driver"}, "it knows of the clauses only what they are called, so that its tests do not have the suite compiled again"},
	{"harktest", []string{module}, "tests of users see what users see"},
	{"docs", []string{module, module + "/driver/", module + "/filter"}, "the code of the guide is what users write"},
	{"examples", []string{module, module + "/filter", module + "/examples/"}, "examples are what users write"},
}

// testImports may be imported by tests, in addition to what their package may
// import.
var testImports = []string{
	module,
	module + "/driver/",
	module + "/filter",
	module + "/harktest",
	module + "/internal/",
	"cel.dev/",
	"github.com/anishathalye/porcupine",
	"github.com/cloudevents/sdk-go/",
	"github.com/google/cel-go/",
	"github.com/nats-io/",
	"github.com/rogpeppe/go-internal/testscript",
	"github.com/santhosh-tekuri/jsonschema/v6",
}

// goFiles returns the tracked Go files of the released module, parsed.
func goFiles(t *testing.T) map[string]*ast.File {
	t.Helper()
	files, err := parsedFiles()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var parsedFiles = sync.OnceValues(func() (map[string]*ast.File, error) {
	files := map[string]*ast.File{}
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (name == "bench" || name == "tools" || name == "bin" || strings.HasPrefix(d.Name(), ".") && name != ".") {
			return fs.SkipDir
		}
		if d.IsDir() || path.Ext(name) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		files[name] = f
		return err
	})
	return files, err
})

func TestImports(t *testing.T) {
	for name, f := range goFiles(t) {
		rule, ok := ruleFor(path.Dir(name))
		if !ok {
			t.Errorf("%s: no rule says what %s may import; add one to importRules", name, path.Dir(name))
			continue
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(imported, "/")
			if !strings.Contains(first, ".") || allowed(imported, rule.imports) {
				continue
			}
			if strings.HasSuffix(name, "_test.go") && allowed(imported, testImports) {
				continue
			}
			t.Errorf("%s imports %s; %s", name, imported, rule.why)
		}
	}
}

func ruleFor(folder string) (importRule, bool) {
	for ; ; folder = path.Dir(folder) {
		for _, r := range importRules {
			if r.folder == folder {
				return r, true
			}
		}
		if folder == "." || !strings.Contains(folder, "/") {
			return importRule{}, false
		}
	}
}

func allowed(imported string, list []string) bool {
	return slices.ContainsFunc(list, func(a string) bool {
		return imported == a || strings.HasSuffix(a, "/") && strings.HasPrefix(imported, a)
	})
}

func TestPackageComments(t *testing.T) {
	comments := map[string]int{}
	for name, f := range goFiles(t) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		dir := path.Dir(name)
		comments[dir] += 0
		if f.Doc == nil {
			continue
		}
		comments[dir]++
		if text := f.Doc.Text(); !strings.HasPrefix(text, "Package "+f.Name.Name) && !strings.HasPrefix(text, "Command ") {
			t.Errorf("%s: the package comment begins %.30q, want Package or Command and the name", name, text)
		}
	}
	for dir, n := range comments {
		if n != 1 {
			t.Errorf("%s has %d package comments, want 1: one place says what it is for", dir, n)
		}
	}
}

func TestFileSizes(t *testing.T) {
	for name := range goFiles(t) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		switch lines := bytes.Count(data, []byte("\n")); {
		case strings.HasSuffix(name, "_test.go"):
		case lines > 800:
			t.Errorf("%s has %d lines, want at most 800: it holds more than one noun", name, lines)
		case lines > 500:
			t.Logf("%s has %d lines: look twice", name, lines)
		}
	}
}

// TestNoSleeps finds tests that wait for time instead of facts. In a synctest
// bubble, such as walk creates, time is fake, so a file that uses one may
// sleep.
func TestNoSleeps(t *testing.T) {
	sleep := []byte("time." + "Sleep(")
	for name := range goFiles(t) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "_test.go") && bytes.Contains(data, sleep) && !bytes.Contains(data, []byte("synctest.Test(")) && !bytes.Contains(data, []byte("walk(t, ")) {
			t.Errorf("%s sleeps; wait for a fact", name)
		}
	}
}

func TestExportedDocs(t *testing.T) {
	exported := 0
	for name, f := range goFiles(t) {
		dir := path.Dir(name)
		if strings.HasSuffix(name, "_test.go") || dir != "." && dir != "filter" && dir != "broker" && !strings.HasPrefix(dir, "driver") {
			continue
		}
		for _, decl := range f.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if !d.Name.IsExported() || d.Recv != nil && !receiverExported(d.Recv) {
					continue
				}
				if d.Recv == nil && dir == "." {
					exported++
				}
				if d.Recv != nil && (d.Name.Name == "String" || d.Name.Name == "Error") {
					continue // everyone knows what they do
				}
				if d.Doc == nil || !strings.HasPrefix(d.Doc.Text(), d.Name.Name+" ") {
					t.Errorf("%s: the comment of %s does not begin with its name", name, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if s, ok := spec.(*ast.TypeSpec); ok && s.Name.IsExported() {
						if dir == "." {
							exported++
						}
						if d.Doc == nil && s.Doc == nil {
							t.Errorf("%s: type %s has no comment", name, s.Name.Name)
						}
					}
					if s, ok := spec.(*ast.ValueSpec); ok && s.Names[0].IsExported() {
						if dir == "." {
							exported += len(s.Names)
						}
						if d.Doc == nil && s.Doc == nil && s.Comment == nil {
							t.Errorf("%s: %s has no comment", name, s.Names[0].Name)
						}
					}
				}
			}
		}
	}
	t.Logf("package hark exports %d names", exported)
}

func receiverExported(r *ast.FieldList) bool {
	typ := r.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

func TestDecisionsAreNumbered(t *testing.T) {
	entries, err := os.ReadDir("docs/adr")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	form := regexp.MustCompile(`^(\d{4})-[a-z0-9-]+\.md$`)
	for _, e := range entries {
		if e.Name() == "README.md" {
			continue
		}
		m := form.FindStringSubmatch(e.Name())
		if m == nil {
			t.Errorf("docs/adr/%s: want NNNN-title.md", e.Name())
			continue
		}
		if other := seen[m[1]]; other != "" {
			t.Errorf("docs/adr: %s and %s have the same number", other, e.Name())
		}
		seen[m[1]] = e.Name()
	}
	for n := 1; n <= len(seen); n++ {
		if number := "000" + strconv.Itoa(n); n < 10 && seen[number] == "" {
			t.Errorf("docs/adr: %s is missing", number)
		}
	}
}

// TestForeignText finds names of machines and registries, which mean nothing to
// a reader of the project.
func TestForeignText(t *testing.T) {
	out, err := exec.Command("git", "ls-files").Output()
	if err != nil {
		t.Logf("not looked at: git ls-files: %v", err)
		return
	}
	for name := range strings.FieldsSeq(string(out)) {
		data, err := os.ReadFile(name)
		if err != nil || strings.HasSuffix(name, ".jsonl") {
			continue
		}
		for _, foreign := range []string{"/wo" + "rk/", "proxy.go" + "lang.org"} {
			if bytes.Contains(data, []byte(foreign)) {
				t.Errorf("%s has %q in it", name, foreign)
			}
		}
	}
}

// TestDocumentedCode compares the Go code in the README and in docs with the
// examples and tests that are compiled and run.
func TestDocumentedCode(t *testing.T) {
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	var code strings.Builder
	for _, pattern := range []string{"example*_test.go", "filter/example*_test.go", "harktest/*_test.go", "docs/guide/*_test.go"} {
		for _, name := range glob(t, pattern) {
			code.WriteString(squeeze(read(t, name)) + " ")
		}
	}
	block := regexp.MustCompile("(?s)```go\n(.*?)```")
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/guide/*.md"} {
		blocks := 0
		for _, name := range glob(t, pattern) {
			for _, b := range block.FindAllStringSubmatch(read(t, name), -1) {
				blocks++
				if !strings.Contains(code.String(), squeeze(b[1])) {
					t.Errorf("%s has code that is in no example:\n%s", name, b[1])
				}
			}
		}
		if blocks == 0 && pattern != "docs/*.md" {
			t.Errorf("%s: there is no Go code", pattern)
		}
	}
}

// TestLinks follows the links between documents.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)]*)?\)`)
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "bench/*.md", "bench/results/*.md"} {
		for _, name := range glob(t, pattern) {
			for _, m := range link.FindAllStringSubmatch(read(t, name), -1) {
				if _, err := os.Stat(path.Join(path.Dir(name), m[1])); err != nil {
					t.Errorf("%s links to %s: %v", name, m[1], err)
				}
			}
		}
	}
}

// TestReadmeTable compares the table in the README with the first one in
// docs/drivers.md. With HARK_UPDATE=1 it copies it.
func TestReadmeTable(t *testing.T) {
	table := regexp.MustCompile(`(?m)^\| Capability .*\n(\|.*\n)+`)
	readme, want := read(t, "README.md"), table.FindString(read(t, "docs/drivers.md"))
	got := table.FindString(readme)
	switch {
	case want == "" || got == "":
		t.Error("README.md or docs/drivers.md has no table of what engines can do")
	case got != want && os.Getenv("HARK_UPDATE") != "":
		if err := os.WriteFile("README.md", []byte(strings.Replace(readme, got, want, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	case got != want:
		t.Error("README.md has another table than docs/drivers.md; make drivers copies it")
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := fs.Glob(os.DirFS("."), pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	return files
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestOneLine checks that the example over an engine differs from the one in
// process only in its first line.
func TestOneLine(t *testing.T) {
	text := read(t, "example_test.go")
	_, inProcess, ok1 := strings.Cut(text, "bus := hark.New()\n")
	_, overEngine, ok2 := strings.Cut(text, "bus, err := hark.Open(")
	_, overEngine, ok3 := strings.Cut(overEngine, "log.Fatal(err)\n\t}\n")
	inProcess, _, ok4 := strings.Cut(inProcess, "\n}\n")
	if !ok1 || !ok2 || !ok3 || !ok4 || !strings.HasPrefix(overEngine, inProcess) {
		t.Errorf("Example and Example_open differ in more than their first lines:\n%s\n%s", inProcess, overEngine)
	}
}
