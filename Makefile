# Everything a contributor needs: `make demo`, `make test`. Both install what the build needs when they run as root, and
# print the one line to run when they do not.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CARGO ?= cargo
VENV := $(CURDIR)/.venv
PYTHON ?= python3

# Aeron's build needs a newer cmake than Debian 12 has, and libclang; both come as Python wheels.
export PATH := $(VENV)/bin:$(PATH)
export LIBCLANG_PATH ?= $(VENV)/libclang
export BINDGEN_EXTRA_CLANG_ARGS ?= -isystem $(shell gcc -print-file-name=include 2>/dev/null)
ifeq ($(shell uname -m),x86_64)
# Binaries that run on every x86-64 machine of the last decade, not only on the one that built them.
export RUSTERON_C_MARCH ?= x86-64-v2
endif

.PHONY: help setup build-setup build demo bench-messaging bench-hub bench-vertex test check deny instructions loom sanitize fuzz fuzz-smoke trace doc chaos chaos-vertex clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## Install what the build and the tests need
	@PYTHON=$(PYTHON) scripts/setup.sh $(VENV) test

# A target of its own: make fixes the environment of a target before its first line, and the compiler's paths are in it.
build-setup:
	@PYTHON=$(PYTHON) scripts/setup.sh $(VENV) build

build: build-setup ## Build the release binary, target/release/tidegate
	$(CARGO) build --release --locked --package tidegate

demo: build ## Run the main job: publish a recording, read it twice, kill the producer, take over; then messages with libzmq; then a function in Python, to files and a NATS stream
	@PYTHON=$(PYTHON) scripts/setup.sh $(VENV) demo
	scripts/demo.sh target/release/tidegate $(VENV)
	scripts/demo-vertex.sh target/release/tidegate $(VENV)

bench-messaging: build ## Measure messaging beside libzmq and monocoque-rs; ARGS="--quick" for a short run
	@PYTHON=$(PYTHON) scripts/setup.sh $(VENV) bench
	$(CARGO) build --release --manifest-path benches/messaging/monocoque/Cargo.toml --target-dir target/monocoque
	@# The release of libzmq that the targets name, whichever the system has.
	target/release/tidegate mq bench --peer monocoque=target/monocoque/release/monocoque-peer \
		$(if $(findstring libzmq,$(ARGS)),,--libzmq $(VENV)/libzmq/4.3.5/libzmq-*.so*) $(ARGS)

bench-hub: build ## Measure the data hub beside iceoryx2, Aeron IPC and bare shared memory; ARGS="--quick" for a short run
	$(CARGO) build --release --locked --manifest-path benches/hub/iceoryx2/Cargo.toml --target-dir target/iceoryx2
	target/release/tidegate hub bench --peer iceoryx2=target/iceoryx2/release/iceoryx2-peer $(ARGS)

bench-vertex: build ## Measure the transport of a vertex beside gRPC over a Unix socket, whole vertices, and how partitions change hands; ARGS="--quick" for a short run
	$(CARGO) build --release --locked --manifest-path benches/vertex/tonic/Cargo.toml --target-dir target/tonic
	@PYTHON=$(PYTHON) scripts/setup.sh $(VENV) demo
	target/release/tidegate vertex bench --grpc target/tonic/release/tonic-peer --python $(VENV)/bin/python $(ARGS)
	$(VENV)/bin/python benches/vertex/handover.py target/release/tidegate

test: setup ## Everything that CI runs
	$(MAKE) --no-print-directory check deny
	$(CARGO) nextest run --workspace --locked --profile ci
	@# Messaging again on the other driver: what the first run did not do on both by itself.
	TIDEGATE_MQ_DRIVER=polling $(CARGO) nextest run --workspace --locked \
		--filterset 'package(tidegate-io) or binary_id(/^tidegate-mq(::(api|duties|features|options))?$$/)'
	$(CARGO) test --workspace --locked --doc --quiet
	@# Programs that measure the hub, whether they work. Without naming the package, which would build everything for it anew.
	$(CARGO) run --locked --quiet --example round_trip -- --quick
	$(CARGO) test --locked --quiet --workspace --bench digest -- --quick
	$(MAKE) --no-print-directory instructions
	$(MAKE) --no-print-directory loom
	$(MAKE) --no-print-directory fuzz-smoke

check: ## Formatting, lints, unsafe boundary, dependency direction, rule-to-test mapping
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@# Without messaging, no code of it.
	$(CARGO) check --package tidegate --no-default-features --locked --quiet
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --quiet
	@# The fuzz targets are a workspace of their own, built last.
	$(CARGO) metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	$(CARGO) xtask check
	$(CARGO) xtask trace

deny: setup ## Licences, banned crates and sources of the dependencies
	@# Crates of other platforms too, which no build here has fetched.
	$(CARGO) fetch --locked --quiet
	$(CARGO) deny --offline --locked --log-level error check licenses bans sources

trace: ## Write the rule-to-test mapping anew
	$(CARGO) xtask trace --write

instructions: setup ## Count the instructions that messages take, beside the numbers kept in the test
	@# The numbers are of code made without further flags.
	env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS \
		$(CARGO) nextest run --release --locked --package tidegate-zmtp --test instructions

loom: ## Model-check the synchronisation of tidegate-shm, tidegate-io and tidegate-hub
	scripts/loom.sh

sanitize: setup ## AddressSanitizer, ThreadSanitizer and valgrind runs
	scripts/sanitize.sh

chaos: build-setup ## Ten minutes of random kills and stops around three producers and eight readers; CHAOS_SECONDS, CHAOS_SEED
	TIDEGATE_CHAOS_SECONDS=$(or $(CHAOS_SECONDS),600) $(if $(CHAOS_SEED),TIDEGATE_CHAOS_SEED=$(CHAOS_SEED)) \
		$(CARGO) test --release --locked --package tidegate-hub --test chaos -- --nocapture --test-threads 1

chaos-vertex: build-setup ## A thousand random kills and stops around a vertex, its worker and its server, between files and between streams; CHAOS_EVENTS, CHAOS_SEED
	TIDEGATE_CHAOS_EVENTS=$(or $(CHAOS_EVENTS),1000) $(if $(CHAOS_SEED),TIDEGATE_CHAOS_SEED=$(CHAOS_SEED)) \
		$(CARGO) test --release --locked --package tidegate-vertex --test chaos -- --nocapture --test-threads 1

fuzz-smoke: ## A minute of each fuzz target of messaging, ten seconds of the others
	scripts/fuzz.sh 60 'mq_*'
	scripts/fuzz.sh 10 '!(mq_*)'

fuzz: ## Ten minutes of every fuzz target; SECONDS_EACH=3600 for a night, TARGETS='mq_*' for some
	scripts/fuzz.sh $(or $(SECONDS_EACH),600) $(if $(TARGETS),'$(TARGETS)')

doc: ## API documentation
	$(CARGO) doc --workspace --no-deps --open

clean: ## Remove build results
	$(CARGO) clean
	rm -rf $(VENV) fuzz/target
