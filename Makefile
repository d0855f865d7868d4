# Everything goes through these targets; README.md says what each is for.
SHELL := /bin/sh
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
BIN := $(CURDIR)/target/bin
EMBED := $(CURDIR)/target/embed
PEERS := $(CURDIR)/target/peers
ARCH := $(shell uname -m)
STATIC_TARGET := $(shell sh tests/static-target.sh)
STATIC_DIR := $(TARGET_DIR)/$(STATIC_TARGET)/static
export BERTH_COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)

.PHONY: all build static soak test compat demo bench install uninstall check clean peers fuzz

all: build

STATIC_BUILD := $(if $(findstring gnu,$(STATIC_TARGET)),RUSTFLAGS="$(RUSTFLAGS) -C target-feature=+crt-static") \
  $(CARGO) build --quiet --locked --profile static --target $(STATIC_TARGET)

# Shim, runtime, init and the payload of the image `hello`: static, one fat LTO each. The client as well: one that need not be linked when it
# starts takes a quarter of the processor's time. On its own, so that what it needs of shared crates does not get into the shim.
static:
	@$(STATIC_BUILD) -p berth-shim -p berth-runb -p berth-init -p berth-hello
	@$(STATIC_BUILD) -p berth-cli

build: static
	@mkdir -p $(BIN) $(EMBED)
	@install -m 755 $(STATIC_DIR)/berth $(STATIC_DIR)/containerd-shim-berth-v1 $(STATIC_DIR)/runb $(BIN)/
	@cmp -s $(STATIC_DIR)/berth-init $(EMBED)/berth-init || cp $(STATIC_DIR)/berth-init $(EMBED)/berth-init
	@$(CARGO) run --quiet --locked -p xtask -- hello-image $(STATIC_DIR)/hello $(EMBED)/hello.tar.new
	@cmp -s $(EMBED)/hello.tar.new $(EMBED)/hello.tar || mv $(EMBED)/hello.tar.new $(EMBED)/hello.tar
	@rm -f $(EMBED)/hello.tar.new
	BERTH_EMBED=$(EMBED) $(CARGO) build --quiet --locked --release -p berth-daemon
	@install -m 755 $(TARGET_DIR)/release/berthd $(BIN)/

# Debian packages of the peers, unpacked below target/; nothing is installed.
peers:
	@tests/fetch-peers.sh $(PEERS) $$(cat tests/peers.txt)
	@tests/fetch-criu.sh $(PEERS) || echo "criu could not be fetched; the tests of checkpoint will say so"

test: build peers
	@tests/run.sh

# Long forms of the crash tests: random kills under load for SOAK_SECONDS, replayable by BERTH_SEED.
SOAK_SECONDS ?= 600
soak: build peers
	@BERTH_SOAK=$(SOAK_SECONDS) tests/soak.sh

# With clients and daemons of another Debian release (SUITE): newer containerd and docker than the suite's.
compat: build peers
	@tests/compat.sh

demo: build
	@tests/demo.sh

# A peer that is no Debian package: without its seccomp, which needs a library's headers.
YOUKI := $(CURDIR)/target/youki
$(YOUKI)/bin/youki:
	@$(CARGO) install --quiet --locked --version 0.7.0 --no-default-features --features v1,v2 --root $(YOUKI) \
	  --target-dir $(YOUKI)/build youki && rm -rf $(YOUKI)/build \
	  || echo "youki could not be built; the tables go without it"

bench: build peers $(YOUKI)/bin/youki
	$(CARGO) run --quiet --locked --release -p berth-bench -- $(BENCH_ARGS)

check:
	$(CARGO) xtask check

# Not part of the suite: fuzz targets, each for FUZZ_SECONDS.
fuzz:
	fuzz/run.sh $(or $(FUZZ_SECONDS),60) $(FUZZ_TARGETS)

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 755 $(BIN)/berth $(BIN)/berthd $(BIN)/containerd-shim-berth-v1 $(BIN)/runb $(DESTDIR)$(PREFIX)/bin/
	sed 's|@BINDIR@|$(PREFIX)/bin|' docs/systemd/berth.service.in > $(DESTDIR)$(PREFIX)/lib/systemd/system/berth.service
	install -m 644 docs/systemd/berth.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/

uninstall:
	cd $(DESTDIR)$(PREFIX)/bin && rm -f berth berthd containerd-shim-berth-v1 runb
	cd $(DESTDIR)$(PREFIX)/lib/systemd/system && rm -f berth.service berth.socket

clean:
	$(CARGO) clean
