# hsm-kp: targets for people and CI. Each installs what it needs and is missing; see
# scripts/install-deps.

GO ?= go
BIN := bin/hsm-kp

.PHONY: all buf build demo test interop integrations lint vuln generate fuzz bench load deps clean help

all: build

build: ## build bin/hsm-kp
	$(GO) build -trimpath -o $(BIN) ./cmd/hsm-kp

deps: ## install SoftHSM from the system's packages if it is missing
	@scripts/install-deps

demo: deps build ## the life of key packages in a temporary folder, step by step
	$(BIN) demo

test: lint ## all tests, with the race detector, against a real SoftHSM and other tokens
	@scripts/install-deps test
	$(GO) test -race -timeout 30m ./...
	$(GO) test -short -timeout 30m -run '^$$' -bench . -benchtime 1x ./... # one run of each benchmark
	cd tests && $(GO) test -race -count=1 -timeout 60m $$($(GO) list ./... | grep -v -e /interop -e /integrations) # not cached: the cache does not notice changes of the program that they run

interop: ## tests with other MLS libraries; needs Node.js, Rust and Java beside Go
	@scripts/install-deps interop
	cd tests && $(GO) test -count=1 -timeout 60m ./interop

integrations: ## whole tests of the adapters for MLS libraries; needs Node.js and Rust beside Go
	@scripts/install-deps
	cd tests && $(GO) test -count=1 -timeout 30m ./integrations

lint: buf ## formatting, vet, staticcheck, tidy modules, generated files up to date
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	cd tests && $(GO) build -o ../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	$(GO) vet ./... && bin/staticcheck ./...
	cd tests && $(GO) vet ./... && ../bin/staticcheck ./...
	$(GO) mod tidy -diff
	cd tests && $(GO) mod tidy -diff
	$(GO) run ./cmd/hsm-kp man | diff docs/man/hsm-kp.1 -
	bin/buf lint
	bin/buf breaking --against api/released.binpb
	@new=$$(mktemp -d) && bin/buf generate -o $$new && diff -r -x '*.proto' -x released.binpb api $$new/api; same=$$?; rm -rf $$new; exit $$same

vuln: ## look for known vulnerabilities; needs the Go vulnerability database
	cd tests && $(GO) build -o ../bin/govulncheck golang.org/x/vuln/cmd/govulncheck
	bin/govulncheck ./...

buf:
	cd tools && $(GO) build -o ../bin/ github.com/bufbuild/buf/cmd/buf connectrpc.com/connect/cmd/protoc-gen-connect-go google.golang.org/protobuf/cmd/protoc-gen-go

generate: buf ## generated files: the manual page, the code of the API
	$(GO) generate ./...
	bin/buf generate

FUZZTIME ?= 30s
fuzz: ## run every fuzz target for FUZZTIME
	scripts/fuzz $(FUZZTIME)

bench: deps build ## benchmarks of the token and of hsm-kp
	scripts/bench

load: ## a million key packages and claims, three services over one PostgreSQL; LOAD has more flags
	@scripts/install-deps test
	scripts/load $(LOAD)

clean: ## remove bin/
	rm -rf bin

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
