# Main targets: `make quickstart` runs the main job; `make test` installs what the tests need and runs all of them.

# Cache of everything that is built or downloaded, shared by all clones.
SQLFLOW_CACHE ?= $(HOME)/.cache/sqlflow
export CARGO_TARGET_DIR ?= $(SQLFLOW_CACHE)/target
VENV := $(SQLFLOW_CACHE)/venv
export SQLFLOW_TEST_PYTHON ?= $(VENV)/bin/python
# Its requirements conflict with those of the submitter.
S3_VENV := $(SQLFLOW_CACHE)/venv-s3
export SQLFLOW_TEST_S3_PYTHON ?= $(S3_VENV)/bin/python
# The clients that are published on PyPI, each with a module `sqlflow`.
PUBLISHED_VENVS := $(SQLFLOW_CACHE)/venv-published
export SQLFLOW_TEST_PUBLISHED ?= $(PUBLISHED_VENVS)
# The peers of `make bench`: connectorx, pandas.
BENCH_VENV := $(SQLFLOW_CACHE)/venv-bench
export SQLFLOW_BENCH_PYTHON ?= $(BENCH_VENV)/bin/python
SUBMITTER := images/submitter
# The Python client and the notebooks that its tests run.
CLIENT_VENV := $(SQLFLOW_CACHE)/venv-clients
CLIENT := clients/python
# Each worker has servers of its own.
PYTEST := python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

# The agent that ships: one static file, as small as it gets. Without the C library's dynamic loader the crate that asks
# for random bytes would look for /dev/urandom, which an empty image has not; so it is told to ask the kernel.
HOST := $(shell rustc -vV 2> /dev/null | sed -n "s/^host: //p")
STATIC_AGENT := $(CARGO_TARGET_DIR)/$(HOST)/dist/sqlflow-agent
# lld, which rustc brings, folds functions that are alike and packs relocations: half a megabyte. On x86-64 rustc takes it
# by itself, elsewhere only if told. It is left out where Rust does not bring it.
RUST_LLD := $(wildcard $(shell rustc --print sysroot 2> /dev/null)/lib/rustlib/$(HOST)/bin/gcc-ld)
ifneq ($(RUST_LLD),)
LLD_FLAGS := -C link-arg=-Wl,--icf=all -C link-arg=-Wl,--pack-dyn-relocs=relr
ifeq ($(filter x86_64-%,$(HOST)),)
LLD_FLAGS += -C link-arg=-fuse-ld=lld -C link-arg=-B$(RUST_LLD)
endif
endif
STATIC_FLAGS := -C target-feature=+crt-static --cfg getrandom_backend="linux_getrandom" $(LLD_FLAGS)
# A program that aborts on panic needs no unwind tables, which the compiler emits anyway: half a megabyte more. Nothing may
# unwind the stack then, so a requested backtrace is empty.
AGENT_LINK_FLAGS := -C link-arg=-Wl,--no-eh-frame-hdr -C link-arg=-Wl,--wrap=_Unwind_Backtrace
export SQLFLOW_TEST_STATIC_AGENT ?= $(STATIC_AGENT)
# What measures and is measured, without another build of agent and data process: those that ship are measured.
BUILD_BENCH := cargo build --release -p sqlflow-server -p sqlflowctl -p sqlflow-tests --bins

# Where `make install` installs. With INSTALL_PROGRAMS it takes programs from that folder, and builds none.
PREFIX ?= $(HOME)/.local

.DEFAULT_GOAL := help
.PHONY: help agent agent-path build install uninstall quickstart cluster cluster-up cluster-down test test-cluster lint test-rust test-submitter test-clients test-quickstart drill bench deny venv venv-dev venv-clients wheel packages clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

agent: ## Build the static agent and data process that ship
	@# One by one: together, each would have the other's features of their dependencies.
	RUSTFLAGS='$(STATIC_FLAGS)' cargo rustc --profile dist -p sqlflow-agent --bin sqlflow-agent --target $(HOST) -- $(AGENT_LINK_FLAGS)
	RUSTFLAGS='$(STATIC_FLAGS)' cargo build --profile dist -p sqlflow-data --target $(HOST)
	strip --remove-section=.eh_frame $(STATIC_AGENT)
	@echo "the static agent is $(STATIC_AGENT)"

agent-path:
	@echo $(STATIC_AGENT)

build: ## Build server, agent and command line
	cargo build --workspace --bins

install: ## Install programs, Python environment, manual pages into PREFIX (~/.local)
ifdef INSTALL_PROGRAMS
	@scripts/install.sh "$(PREFIX)" "$(INSTALL_PROGRAMS)"
else
	@# Not the static agent, for which all that both need would be built a second time.
	cargo build --release --locked -p sqlflow-server -p sqlflow-agent -p sqlflow-data --bins
	@scripts/install.sh "$(PREFIX)" "$(CARGO_TARGET_DIR)/release"
endif

uninstall: ## Remove what make install installed, and name what stays
	@scripts/uninstall.sh "$(PREFIX)"

quickstart: build venv ## Train, evaluate and predict on Fisher's irises with a server of its own
	scripts/quickstart.sh

test: packages lint test-rust test-submitter test-clients test-quickstart test-cluster ## Everything, from a fresh clone
	@tests/cluster/cluster.sh down

lint: venv-dev ## Formatting, lints, types and prose
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	@# The features of the agent are those of its libraries, and its own code is the same with all of them. So each storage is
	@# compiled alone without the agent, which takes longer than the library.
	! grep -rnE 'feature *= *"' agent/src
	cargo clippy -p sqlflow-agent --no-default-features --quiet -- -D warnings
	cargo clippy -p sqlflow-agent --no-default-features --features trace --quiet -- -D warnings
	for alone in hdfs webhdfs s3 oss gs azblob; do \
		cargo clippy -p sqlflow-model-storage --no-default-features --features $$alone --quiet -- -D warnings || exit 1; done
	cd $(SUBMITTER) && $(VENV)/bin/ruff check --quiet . && $(VENV)/bin/ruff format --quiet --check . && $(VENV)/bin/mypy --no-error-summary
	cd $(SUBMITTER) && $(VENV)/bin/ruff check --quiet --config pyproject.toml ../../tests/bench ../../scripts/generate_protos.py
	cd $(SUBMITTER) && $(VENV)/bin/ruff format --quiet --check --config pyproject.toml ../../tests/bench ../../scripts/generate_protos.py
	$(VENV)/bin/python scripts/generate_protos.py --check
	python3 scripts/test_check_prose.py
	scripts/check-prose

test-rust: packages build agent venv ## Unit, property and end-to-end tests
	cargo test --workspace --exclude sqlflow-tests
	cargo test -p sqlflow-tests --lib --bins
	cargo test -p sqlflow-tests --test agent --test link --test e2e --test hostile
	cargo test -p sqlflow-tests --test faults
	cargo test -p sqlflow-tests --test storage
	cargo test -p sqlflow-tests --test observe

test-cluster: cluster ## Jobs on a real Kubernetes of this machine (root and Linux only)
	@scripts/test-tool.sh network-policies > /dev/null
	cargo test -p sqlflow-tests --test kubernetes
	cargo test -p sqlflow-tests --test kubernetes -- --ignored --test-threads 1

cluster: build agent venv ## Bring the test cluster up, and print its KUBECONFIG
	@$(MAKE) --no-print-directory cluster-up

# Without a build: SQLFLOW_IMAGE_PROGRAMS is the folder of the server in its image.
cluster-up:
	@scripts/test-packages.sh cluster
	@scripts/test-tool.sh kubernetes > /dev/null
	@scripts/test-tool.sh coredns > /dev/null
	@tests/cluster/cluster.sh up
	@tests/cluster/images.sh

cluster-down: ## End the test cluster and remove all of it
	@tests/cluster/cluster.sh down

test-submitter: packages build venv-dev ## The submitter against SQLite, MariaDB and PostgreSQL
	cd $(SUBMITTER) && $(VENV)/bin/$(PYTEST)

test-clients: build venv venv-clients ## The Python client, in a notebook kernel too, and the clients of docs/writing-a-client.md
	@scripts/test-packages.sh
	cd $(CLIENT) && $(CLIENT_VENV)/bin/ruff check --quiet . && $(CLIENT_VENV)/bin/ruff format --quiet --check . && $(CLIENT_VENV)/bin/mypy --no-error-summary
	$(CLIENT_VENV)/bin/python scripts/generate_protos.py --check
	cd $(CLIENT) && $(CLIENT_VENV)/bin/$(PYTEST)

wheel: venv-clients ## Build the Python client into clients/python/dist
	rm -rf $(CLIENT)/build $(CLIENT)/dist
	$(CLIENT_VENV)/bin/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w $(CLIENT)/dist $(CLIENT)
	@ls $(CLIENT)/dist/*.whl

test-quickstart: quickstart

drill: packages build agent venv venv-clients ## The heavy drills at full size
	SQLFLOW_DRILL_MIB=1024 SQLFLOW_DRILL_CUT_MS=5000 cargo test -p sqlflow-tests --test link every_byte -- --nocapture
	SQLFLOW_DRILL_MODEL_GIB=20 cargo test -p sqlflow-tests --test agent large_model
	SQLFLOW_DRILL_RETRAINS=200 SQLFLOW_DRILL_STORED_MIB=2048 cargo test -p sqlflow-tests --test storage
	SQLFLOW_DRILL_PAGE_MIB=1024 cargo test -p sqlflow-tests --test observe large_log
	cd $(CLIENT) && SQLFLOW_DRILL_ROWS=10000000 $(CLIENT_VENV)/bin/python -m pytest -q tests/test_large_results.py
	$(MAKE) cluster
	SQLFLOW_DRILL_APISERVER_SECONDS=60 cargo test -p sqlflow-tests --test kubernetes apiserver_outage
	SQLFLOW_DRILL_KILLS=20 cargo test -p sqlflow-tests --test e2e server_killed -- --test-threads 1
	SQLFLOW_FAULT_SCHEDULES=2000 cargo test -p sqlflow-tests --test faults
	$(BUILD_BENCH)
	$(CARGO_TARGET_DIR)/release/sqlflow-bench --only soak --out build/soak.json
	SQL_FUZZ_INPUTS=10000000 cargo test --release -p sqlflow-sql fuzz_many

bench: export SQLFLOW_IMAGE_PROGRAMS := $(CARGO_TARGET_DIR)/release
bench: ## Speed, beside peers in the same run; also as build/bench.json
	@echo "make bench builds what is not in the cache: the static agent and data process that ship (profile dist), about"
	@echo "5 minutes on two cores; server, command line and benchmark (profile release), about 10 minutes; and once a"
	@echo "Kubernetes, an HDFS and an S3 server. Then it measures; the group data alone takes about 25 minutes."
	@$(MAKE) --no-print-directory agent venv
	@scripts/test-packages.sh bench
	@scripts/venv.sh $(BENCH_VENV) tests/bench/requirements-bench.txt
	$(BUILD_BENCH)
	@$(MAKE) --no-print-directory cluster-up
	$(CARGO_TARGET_DIR)/release/sqlflow-bench --out build/bench.json

deny: ## Licences, sources and versions of dependencies
	command -v cargo-deny > /dev/null || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

venv:
	@scripts/venv.sh $(VENV) $(SUBMITTER)/requirements.txt "$$(grep '^scikit-learn==' $(SUBMITTER)/requirements-dev.txt)"
	@scripts/venv.sh $(S3_VENV) tests/requirements.txt
	@# Their lists are complete, and what the packages ask for cannot be installed together.
	@for client in sqlflow sqlflowcli; do \
		scripts/venv.sh $(PUBLISHED_VENVS)-$$client tests/published/requirements-$$client.txt --no-deps || exit 1; done

venv-dev: venv
	@scripts/venv.sh $(VENV) $(SUBMITTER)/requirements-dev.txt

venv-clients:
	@scripts/venv.sh $(CLIENT_VENV) $(CLIENT)/requirements-dev.txt

packages:
	@scripts/test-packages.sh
	@scripts/test-tool.sh hadoop > /dev/null
	@scripts/test-tool.sh weed > /dev/null
	@scripts/test-tool.sh jaeger > /dev/null
	@scripts/test-tool.sh oidc-provider > /dev/null
	@scripts/test-tool.sh go-pinger > /dev/null

clean: ## Remove what this clone built; the shared cache stays
	rm -rf build $(CLIENT)/build $(CLIENT)/dist $(CLIENT)/*.egg-info
