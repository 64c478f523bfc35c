# Everything here needs Go and nothing else.

GO ?= go
BIN := bin

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## run all tests of what ships
	$(GO) test ./...

# Everything else beside the tests with the race detector, which wait a lot: for leases
# and for the disk. It only gets the time that those leave (nice), so that those are
# built first and little is left idle. The tests without it come behind, alone, because
# those of clusters need both processors. What a step prints comes when it has ended,
# where make can do that, and with it its name. What go vet has checked (check-lint) is
# not vetted again where that would have to be done anew: -vet=off.
BEHIND := nice -n 19
BESIDE := -j2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# What compiles much may use more memory for it, up to 2.5 GB a package: the compiler
# otherwise collects garbage for a fifth of its time. Tests run without it.
COMPILE := GOGC=400

.PHONY: check
check: ## run everything that must hold before a change lands
	@before=$$(git status --porcelain 2>/dev/null); \
	$(MAKE) --no-print-directory check-format check-modules && \
	$(MAKE) --no-print-directory $(BESIDE) check-race check-lint check-bench check-fuzz && \
	$(MAKE) --no-print-directory test || exit 1; \
	after=$$(git status --porcelain 2>/dev/null); \
	if [ "$$before" != "$$after" ]; then echo "the check changed files:"; echo "$$after"; exit 1; fi

.PHONY: gofumpt
gofumpt:
	@$(GO) build -C tools -o ../$(BIN)/ mvdan.cc/gofumpt

.PHONY: check-format
check-format: gofumpt
	@echo "== format"
	@out=$$($(BIN)/gofumpt -l . ); if [ -n "$$out" ]; then echo "not formatted (make fmt):"; echo "$$out"; exit 1; fi

.PHONY: check-lint
check-lint:
	@echo "== vet"
	@$(COMPILE) $(BEHIND) $(GO) vet ./...
	@echo "== staticcheck"
	@$(COMPILE) $(BEHIND) $(GO) build -C tools -o ../$(BIN)/ honnef.co/go/tools/cmd/staticcheck
	@$(COMPILE) $(BEHIND) $(BIN)/staticcheck ./...
	@echo "== go fix"
	@out=$$($(BEHIND) $(GO) fix -diff ./...); if [ -n "$$out" ]; then echo "$$out"; exit 1; fi

.PHONY: check-race
check-race:
	@echo "== tests with the race detector"
	@$(COMPILE) $(GO) list -race -export -test ./... >/dev/null
	@# The packages whose tests take longest come first, so that none is left to run alone.
	@$(GO) test -race -vet=off -timeout 20m ./driver/natsdriver ./broker ./...

.PHONY: check-modules
check-modules:
	@echo "== modules"
	@for dir in . tools bench; do (cd $$dir && $(GO) mod tidy -diff) || exit 1; done

.PHONY: check-bench
check-bench:
	@echo "== benchmarks run"
	@out=$$($(BEHIND) $(GO) test -vet=off -run '^$$' -bench . -benchtime 1x $$($(GO) list -f '{{.Dir}}' ./... | while read -r dir; do grep -qs '^func Benchmark' "$$dir"/*_test.go && echo "$$dir"; done) 2>&1) || { echo "$$out"; exit 1; }
	@$(COMPILE) $(BEHIND) $(GO) -C bench vet ./... && $(BEHIND) $(GO) -C bench test -vet=off ./...

.PHONY: check-fuzz
check-fuzz:
	@echo "== fuzz tests, a little"
	@out=$$($(BEHIND) $(MAKE) --no-print-directory fuzz FUZZTIME=3s 2>&1) || { echo "$$out"; exit 1; }

.PHONY: drivers
drivers: ## write what each engine can do into docs/drivers.md and README.md
	HARK_UPDATE=1 $(GO) test -count=1 -p 1 -run '^TestConformance' ./driver/drivertest ./driver/filedriver ./driver/natsdriver
	HARK_UPDATE=1 $(GO) test -count=1 -run '^TestReadmeTable$$' .

.PHONY: cli
cli: ## write what the commands say of themselves into docs/cli.md
	HARK_UPDATE=1 $(GO) test -count=1 -run '^TestDocs$$' ./internal/cli

.PHONY: bench
bench: ## measure hark against its peers, print the table and write bench/results
	$(GO) run -C bench .

.PHONY: bench-engines
bench-engines: ## the same over engines, beside a NATS server in another process
	$(GO) run -C bench . -engines

FUZZTIME ?= 1m

# How what a fuzz test prints ends when it has found nothing. Go before 1.27 may fail it for
# its time being up (go.dev/issue/75804); then it says that alone, and of no input.
FUZZED := (^|[|])PASS[|]$$|^--- FAIL: [^|]*[|]    context deadline exceeded[|]FAIL[|]$$

# The tests of a package are built once for all its fuzz tests. What they find worth
# trying is kept where go test -fuzz keeps it. Unlike there, only the package itself
# tells what runs (-d=libfuzzer): everything that it imports is built already.
.PHONY: fuzz
fuzz: ## fuzz each fuzz test for a minute, or FUZZTIME
	@top=$$PWD; corpus=$$($(GO) env GOCACHE)/fuzz; \
	$(GO) list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r pkg dir; do \
		grep -qs '^func Fuzz' "$$dir"/*_test.go || continue; \
		$(COMPILE) $(GO) test -c -vet=off -gcflags="$$pkg=-d=libfuzzer" -ldflags '-s -w' -o $(BIN)/fuzz.test "$$pkg" && cd "$$dir" || exit 1; \
		for name in $$("$$top/$(BIN)/fuzz.test" -test.list '^Fuzz'); do \
			echo "== $$pkg $$name"; \
			"$$top/$(BIN)/fuzz.test" -test.run '^$$' -test.fuzz "^$$name$$" -test.fuzztime $(FUZZTIME) -test.fuzzcachedir "$$corpus/$$pkg" </dev/null 2>&1 | tee "$$top/$(BIN)/fuzz.out"; \
			tail -n 3 "$$top/$(BIN)/fuzz.out" | tr '\n' '|' | grep -qE -- '$(FUZZED)' || exit 1; done; \
		cd "$$top" && rm $(BIN)/fuzz.test; done

.PHONY: fmt
fmt: gofumpt ## format the code
	@$(BIN)/gofumpt -w .
