# Each target does its own set-up. `make demo` and `make test` are all that a newcomer needs.

GO   ?= go
FUZZ ?= 60s

# Has what libraries leave of secrets in memory erased: see keyspec/secret. What is built without it works as well, and leaves more behind.
export GOEXPERIMENT ?= runtimesecret

.PHONY: demo test build deps test-deps lint bench bench-scale fuzz soak clients fault clean

demo: deps
	$(GO) run ./cmd/strongroom demo

test: test-deps build lint
	$(GO) test -race -timeout 40m ./...

build: deps
	$(GO) build -o strongroom ./cmd/strongroom

# Everything that is installed from outside; nothing is where all is there.
deps:
	@sh test/deps.sh

# What the tests need beyond that: other tokens than SoftHSM.
test-deps:
	@sh test/deps.sh tests

lint:
	$(GO) vet ./...
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) tool staticcheck ./...

# What everything costs, in one table next to what it is held against, and in bench.txt, or BENCH, for `benchstat old.txt new.txt`. See BENCHMARKS.md.
bench: deps
	$(GO) run ./test/bench -all -seconds 3 -go $${BENCH:-bench.txt}

# A store of a million keys and ten million grants next to one of ten keys. It takes a quarter of an hour to fill, 10 GB, and stays in SCALE for the next time.
SCALE ?= /var/tmp/strongroom-scale
bench-scale: deps
	$(GO) run ./test/bench -scale $(SCALE)

# A minute, or FUZZ, for each fuzz target.
fuzz: deps
	sh test/fuzz.sh $(FUZZ)

# The long checks: a million requests with a flat memory, kill -9 for as long as SOAK says, restarts and outages of the HSM, a hundred of them in a row.
soak: test-deps
	STRONGROOM_SOAK=$${SOAK:-10m} $(GO) test -count=1 -timeout 3h -run 'Soak|Kill|HSM|NothingLeft' -v ./test ./hsm/worker

# Stock clients in other languages against `strongroom dev`.
clients: build
	sh test/deps.sh clients
	sh test/clients/run.sh

# A PKCS#11 module that fails when it is told to, for tests: see softhsm/fault/README.md.
fault: deps
	gcc -std=gnu11 -Wall -Wextra -Werror -O2 -fPIC -fvisibility=hidden -shared -o libstrongroom-fault.so softhsm/fault/module/*.c -ldl -lpthread

clean:
	rm -rf strongroom libstrongroom-fault.so bench.txt test/clients/node_modules
