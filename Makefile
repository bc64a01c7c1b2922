# momo: `make help` lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d

CARGO ?= cargo
CONF  ?= conf/local.conf
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIN   ?= $(TARGET_DIR)/release/momo
MUSL  := x86_64-unknown-linux-musl
SOURCES := Cargo.toml Cargo.lock $(shell find src -name '*.rs' 2>/dev/null)
ABSENT := $(if $(wildcard tests/simulation.rs tests/simulation/main.rs),,sim) \
	$(if $(wildcard tests/fuzz.rs tests/fuzz/main.rs),,fuzz)
SCRIPTS := .ci/run $(wildcard tests/*.sh scripts/*.sh)

.DEFAULT_GOAL := help
.PHONY: help build static minimal test check tidy fmt lint scripts vendor bench crash sim canary fuzz soak demo \
	server0 server1 server2 run-server run-client cluster install clean ci

help: ## this list
	@awk -F ':.*## ' -v absent=" $(ABSENT) " '/^[a-z0-9-]+:.*## / && !index(absent, " " $$1 " ") \
		{ printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  variables: CONF=$(CONF) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) BENCH_MB=1024 BENCH_RUNS=5 BENCH_NAMES=1000000 CRASH_ROUNDS=100"

build: $(BIN) ## the release binary

$(TARGET_DIR)/release/momo: $(SOURCES)
	$(CARGO) build --release --locked
	@touch $@

static: ## a static binary (musl), the same on every distribution
	CC_x86_64_unknown_linux_musl=gcc $(CARGO) build --release --locked --target $(MUSL)
	@echo "$(TARGET_DIR)/$(MUSL)/release/momo"

minimal: ## the smallest whole daemon and client: no progress bars, no colour
	$(CARGO) build --release --locked --no-default-features
	@echo "$(TARGET_DIR)/release/momo"

test: scripts ## format, lints, every test: under ten minutes on two cores
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked

check: ## does it compile, quickly
	$(CARGO) check --locked --all-targets

tidy: ## the table of floors
	$(CARGO) test --locked --test tidy

scripts:
	@for script in $(SCRIPTS); do sh -n "$$script" || exit 1; done

vendor: ## all crates into vendor/, for builds without network
	$(CARGO) vendor --quiet --locked vendor > /dev/null
	@echo "vendor/ is filled. For a build without network put this into .cargo/config.toml:"
	@echo
	@printf '[source.crates-io]\nreplace-with = "vendored-sources"\n\n[source.vendored-sources]\ndirectory = "vendor"\n'

bench: ## the figures, as ratios to floors of the same run (BENCH_PART, BENCH_MB, BENCH_RUNS, JSON=1)
	$(CARGO) bench --locked --bench bench -- $(if $(JSON),--json)

crash: ## kill -9 of daemons during uploads, a hundred rounds
	CRASH_ROUNDS=$(or $(CRASH_ROUNDS),100) $(CARGO) test --locked --test cluster kill -- --nocapture

ifneq ($(wildcard tests/simulation.rs tests/simulation/main.rs),)
sim: ## the simulator over many seeds (SEEDS=n FROM=k)
	SIM_SEEDS=$(or $(SEEDS),1000) SIM_FIRST=$(or $(FROM),1) $(CARGO) test --locked --release --test simulation every_seed -- --nocapture

canary: ## six deliberately broken builds, each of which the simulator must catch within 200 seeds
	SIM_CANARY=1 $(CARGO) test --locked --test simulation canary -- --nocapture
endif

ifneq ($(wildcard tests/fuzz.rs tests/fuzz/main.rs),)
fuzz: ## the laws of every format over many inputs, new ones kept in tests/fuzz/corpus (SECONDS=n, CASES=n, SEED=n)
	FUZZ_CASES=$(or $(CASES),20000) $(CARGO) test --locked --test fuzz -- --skip corpus
	FUZZ_SAVE=1 FUZZ_SEED=$(or $(SEED),$$(date +%s)) FUZZ_SECONDS=$(or $(SECONDS),300) \
		$(CARGO) test --locked --test fuzz corpus -- --nocapture
endif

soak: ## load and faults together, nothing lost, memory flat (MINUTES=n)
	SOAK_MINUTES=$(or $(MINUTES),10) $(CARGO) test --locked --release --test cluster soak -- --ignored --nocapture

demo: $(BIN) ## three daemons, an upload in each mode, a daemon killed, everything read back
	MOMO=$(BIN) sh tests/demo.sh

server0: $(BIN) ## daemon 0 of conf/local.conf, in the foreground
	$(BIN) server --id 0 --conf $(CONF)
server1: $(BIN) ## daemon 1
	$(BIN) server --id 1 --conf $(CONF)
server2: $(BIN) ## daemon 2
	$(BIN) server --id 2 --conf $(CONF)

run-server: $(BIN) ## daemon ID=n of CONF
	@test -n "$(ID)" || { echo "usage: make run-server ID=n [CONF=file]" >&2; exit 2; }
	$(BIN) server --id $(ID) --conf $(CONF)

run-client: $(BIN) ## upload FILE=path with the Momo client
	@test -n "$(FILE)" || { echo "usage: make run-client FILE=path [CONF=file]" >&2; exit 2; }
	$(BIN) -imp client -file "$(FILE)" --conf $(CONF)

cluster: $(BIN) ## the daemons of CONF in the foreground, watched, until Ctrl-C
	$(BIN) cluster up --conf $(CONF)

install: ## binary, conf, systemd units (DESTDIR=, PREFIX=/usr/local)
	@test -x $(BIN) || $(MAKE) build
	install -D -m 0755 $(BIN) $(DESTDIR)$(PREFIX)/bin/momo
	@if test -e $(DESTDIR)$(SYSCONFDIR)/momo/momo.conf; then \
		echo "$(DESTDIR)$(SYSCONFDIR)/momo/momo.conf is kept"; \
	else \
		install -D -m 0644 conf/momo.conf $(DESTDIR)$(SYSCONFDIR)/momo/momo.conf; \
	fi
	install -d -m 0755 $(DESTDIR)$(UNITDIR)
	sed -e 's|/usr/local/bin/momo|$(PREFIX)/bin/momo|' -e 's|/etc/momo|$(SYSCONFDIR)/momo|' systemd/momo@.service > $(DESTDIR)$(UNITDIR)/momo@.service
	sed -e 's|/usr/local/bin/momo|$(PREFIX)/bin/momo|' -e 's|/etc/momo|$(SYSCONFDIR)/momo|' systemd/momo-cluster.service > $(DESTDIR)$(UNITDIR)/momo-cluster.service
	install -m 0644 systemd/momo.target $(DESTDIR)$(UNITDIR)/momo.target
	install -D -m 0644 systemd/sysusers.d/momo.conf $(DESTDIR)$(SYSUSERSDIR)/momo.conf
	install -D -m 0644 systemd/tmpfiles.d/momo.conf $(DESTDIR)$(TMPFILESDIR)/momo.conf
	@echo "next: systemd-sysusers; systemd-tmpfiles --create; edit $(SYSCONFDIR)/momo/momo.conf; momo secret new;"
	@echo "      chown momo: $(SYSCONFDIR)/momo/momo.secret; systemctl enable --now momo.target momo@0 (or momo-cluster)"

clean: ## what a build made
	$(CARGO) clean

ci: ## what the gate runs
	sh .ci/run
