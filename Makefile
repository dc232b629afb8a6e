# hsm-kp: what a person or CI types. Each target installs what it needs and is
# missing; see scripts/install-deps.

GO ?= go
BIN := bin/hsm-kp

.PHONY: all build demo test lint generate fuzz bench deps clean

all: build

build: ## build bin/hsm-kp
	$(GO) build -trimpath -o $(BIN) ./cmd/hsm-kp

deps: ## install SoftHSM from the system's packages where it is missing
	@scripts/install-deps

demo: deps build ## the main job in a temporary folder, narrated
	$(BIN) demo

test: deps lint ## all tests, with the race detector, against a real SoftHSM
	$(GO) test -race ./...
	cd tests && $(GO) test -race ./...

lint: ## formatting, vet, tidy modules
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	cd tests && $(GO) vet ./...
	$(GO) mod tidy -diff
	cd tests && $(GO) mod tidy -diff

generate: ## files that are made from code: the manual page
	$(GO) generate ./...

FUZZTIME ?= 30s
fuzz: ## every fuzz target for FUZZTIME
	scripts/fuzz $(FUZZTIME)

bench: deps build ## what the token can do, and what hsm-kp makes of it
	scripts/bench

clean:
	rm -rf bin
