# `make help` lists what there is.

CARGO ?= cargo

.PHONY: all bench bench-instructions bench-journal bench-tools build header check check-windows chaos fronts fuzz test asan demo sandbox help clean need-rust need-cc need-python

all: build

help:
	@echo 'make build    the libraries that ship: target/release/libarctos.so and .a'
	@echo 'make demo     build everything and make appointments from C and Python against the sandbox'
	@echo 'make test     build everything and run all tests'
	@echo 'make sandbox  serve the documented endpoint on http://127.0.0.1:8080'
	@echo 'make header   write include/arctos.h after a change of src/ffi'
	@echo 'make check    formatting, lints, and whether include/arctos.h is up to date'
	@echo 'make check-windows  build the library for 64-bit Windows and make appointments with it under wine'
	@echo 'make chaos    many threads against servers that misbehave, for CHAOS_SECONDS (120); CHAOS_SEED repeats a run'
	@echo 'make fronts   calls through nginx and haproxy that reload, FRONTS_CALLS (120000) of them'
	@echo 'make bench    what a call costs through this library, libcurl, a bare socket, and clients in Python'
	@echo 'make bench-instructions  the instructions, allocations and system calls of a call, and whether they are more now'
	@echo 'make bench-journal  what a call costs with a journal and without one, on the disk of BENCH_DIR (target)'
	@echo 'make fuzz     run the fuzz targets, FUZZ_SECONDS (60) each'

BENCH_CFLAGS = -std=gnu99 -O2 -Wall -Wextra -Wpedantic -Werror -Iinclude
BENCH_LDFLAGS = -Ltarget/release -larctos -Wl,-rpath,$(CURDIR)/target/release -pthread
CARGO_HOME ?= $(HOME)/.cargo

# Both crate types are asked for by name: with the rlib among them, cargo leaves LTO out without a word. No path of
# the machine that builds them stays in the libraries.
build: need-rust need-cc
	@$(CARGO) fetch --locked --quiet
	@rust="$(RUSTFLAGS) --remap-path-prefix=$(CURDIR)=arctos"; c="$(CFLAGS) -ffile-prefix-map=$(CURDIR)=arctos"; \
	for folder in $(CARGO_HOME)/registry/src/*; do \
		rust="$$rust --remap-path-prefix=$$folder=crates"; c="$$c -ffile-prefix-map=$$folder=crates"; \
	done; \
	RUSTFLAGS="$$rust" CFLAGS="$$c" \
		$(CARGO) rustc --locked --release --lib --package arctos --crate-type cdylib,staticlib

header: need-rust need-cc
	$(CARGO) run --locked --quiet --package arctos-header

check: need-rust need-cc
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --package arctos --all-targets --no-default-features -- -D warnings
	$(CARGO) run --locked --quiet --package arctos-header -- --check

check-windows: need-rust need-cc need-python
	@CARGO='$(CARGO)' python3 tests/windows/check.py

chaos: build
	CHAOS_SECONDS=$${CHAOS_SECONDS:-120} $(CARGO) test --locked --package arctos-tests --test chaos -- --nocapture

fronts: build
	FRONTS_CALLS=$${FRONTS_CALLS:-120000} $(CARGO) test --locked --package arctos-tests --test fronts -- --nocapture

bench: bench-tools need-python
	@python3 bench/run.py

bench-instructions: bench-tools need-python
	@python3 bench/instructions.py

# The programs of the benchmark; libcurl's where its headers are.
bench-tools: build
	@$(CARGO) build --locked --quiet --profile bench-tools --package arctos-bench
	@$${CC:-cc} $(BENCH_CFLAGS) bench/clients/arctos.c $(BENCH_LDFLAGS) -o target/bench-tools/bench-arctos
	@$${CC:-cc} $(BENCH_CFLAGS) bench/clients/many.c $(BENCH_LDFLAGS) -o target/bench-tools/bench-many
	@rm -f target/bench-tools/bench-curl
	@if echo '#include <curl/curl.h>' | $${CC:-cc} -E - >/dev/null 2>&1; then \
		$${CC:-cc} $(BENCH_CFLAGS) bench/clients/curl.c -lcurl -pthread -o target/bench-tools/bench-curl; \
	fi

bench-journal: build
	@$${CC:-cc} $(BENCH_CFLAGS) bench/journal.c $(BENCH_LDFLAGS) -o target/bench-journal
	@target/bench-journal

fuzz: need-rust need-cc need-python
	@CARGO='$(CARGO)' python3 fuzz/run.py

# All tests, though one fails; what is skipped for want of a tool says so.
test: build asan need-python
	$(CARGO) rustc --locked --lib --package arctos --crate-type cdylib --features planted-panic,planted-no-sync --target-dir target/planted
	$(CARGO) test --locked --workspace --no-fail-fast

# The library with AddressSanitizer in it, for the tests. Only Rust's nightly toolchain builds it: where that is not
# installed, none is there that could be an old one.
asan: need-rust need-cc
	@rm -f target/asan/libarctos.so
	@if $(CARGO) +nightly --version >/dev/null 2>&1; then \
		host=$$(rustc +nightly --version --verbose | sed -n 's/^host: //p'); \
		RUSTFLAGS='-Zsanitizer=address --cap-lints=warn' $(CARGO) +nightly rustc --locked --lib --package arctos \
			--crate-type cdylib --target "$$host" --target-dir target/asan && \
		cp "target/asan/$$host/debug/libarctos.so" target/asan/; \
	fi

demo: build need-python
	$(CARGO) build --locked --package arctos-sandbox
	python3 examples/demo.py

sandbox: need-rust need-cc
	$(CARGO) run --locked --package arctos-sandbox

clean: need-rust
	$(CARGO) clean

need-rust:
	@command -v $(CARGO) >/dev/null || { echo 'cargo is missing: it comes with Rust, by rustup (https://rustup.rs)' >&2; exit 1; }

need-cc:
	@command -v $${CC:-cc} >/dev/null || { echo 'a C compiler is missing: it comes with the package gcc' >&2; exit 1; }

need-python:
	@command -v python3 >/dev/null || { echo 'python3 is missing: it comes with the package python3' >&2; exit 1; }
