.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-old simulate crashes explore differential fuzz nightly testbed lint advisories bench outcome bench-scale

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Shows a node replaced, the fallback to on-demand and the return to Spot, in a simulated cloud
	@echo 'Building first; the first time takes minutes.' >&2
	@cargo run -- demo --once

test: testbed ## Runs all tests, also those on a real Kubernetes control plane
	cargo test

test-fast: ## Runs the tests that need no cluster
	cargo test --workspace --lib --bins --test cli --test simulation --test contract --test fuzz --test tidy

test-old: testbed ## Runs a smaller suite on the oldest Kubernetes that EKS supports
	@folder="$$(testbed/old)" && "$$folder/kube-apiserver" --version && \
	SPOT_GUARD_TESTBED="$$folder" cargo test --test cluster -- crds:: agent:: access:: attacks:: chart:: \
	  stories::dry_spot_falls_back_to_on_demand_and_returns

simulate: ## Plays random scenarios in the simulated cloud: SEEDS=1000 of them, from SEED=1
	@SIMULATE_SEEDS=$(or $(SEEDS),1000) SIMULATE_SEED=$(or $(SEED),1) SIMULATE_EVENTS=$(EVENTS) \
	cargo test --quiet --test simulation random::random_stories -- --exact --nocapture

crashes: ## Kills the controller before and after each write of every scenario, or of some: STORIES=Storm,Odd
	@SIMULATE_CRASHES=$(STORIES) cargo test --quiet --test simulation every_story_survives_a_crash_at_every_point -- --ignored --nocapture

explore: ## Visits every state of a small world: all orders of all events, EVENTS=3 of them in the finest steps
	@EXPLORE_EVENTS=$(or $(EVENTS),3) EXPLORE_ORDERS=$(or $(ORDERS),5) \
	cargo test --quiet -p spot-guard-core --lib model::exhaustive -- --include-ignored --nocapture --test-threads 1

nightly: ## Runs what takes too long for every change: 10,000 scenarios, all crash points, explore, differential, fuzz, oldest Kubernetes
	$(MAKE) simulate SEEDS=10000
	$(MAKE) crashes
	$(MAKE) explore
	$(MAKE) differential
	$(MAKE) fuzz
	$(MAKE) test-old

differential: testbed ## Compares the safety check with the real scheduler: CLUSTERS=1000 from SEED=501
	CLUSTERS=$(or $(CLUSTERS),1000) SEED=$(or $(SEED),501) cargo test --test cluster the_check_agrees -- --nocapture

fuzz: ## Feeds each parser of outside input changed copies of what is valid: SECONDS=120 each, from SEED=1
	FUZZ_SECONDS=$(or $(SECONDS),120) FUZZ_SEED=$(or $(SEED),1) cargo test --quiet --test fuzz -- --nocapture

testbed: ## Builds the control plane and the programs that the cluster tests need, if they are missing
	@echo 'Looking for the testbed; if it is missing it is built, which takes minutes.' >&2
	@testbed/build > /dev/null
	@testbed/helm > /dev/null
	@testbed/hcl > /dev/null
	@testbed/prometheus --server > /dev/null
	@testbed/grafana > /dev/null
	@testbed/jaeger > /dev/null

lint: ## Checks format, warnings, the build without the simulation, licenses, and known vulnerabilities
	cargo fmt --all --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features -p spot-guard -- -D warnings
	@PATH="$$(testbed/deny):$$PATH" cargo deny check licenses bans sources
	@$(MAKE) --no-print-directory advisories

# A database that cannot be asked is told in the last lines, and is a failure where ADVISORIES=required says so. What is
# known and has no fix to be had is in known-holes.yaml, which `make test` compares with Cargo.lock in any case.
advisories: ## Asks the RustSec database for holes in dependencies; ADVISORIES=required fails where it cannot be asked
	@if cargo deny --version > /dev/null 2>&1 && cargo deny fetch db; then \
	  cargo deny --offline check advisories; \
	elif cargo audit --version > /dev/null 2>&1; then \
	  cargo audit; \
	else \
	  echo '' >&2; \
	  echo 'NOT CHECKED: the database of advisories was not asked. Neither cargo-deny with a way to it' >&2; \
	  echo 'nor cargo-audit is here. Only the holes of known-holes.yaml are looked for, by make test.' >&2; \
	  [ '$(ADVISORIES)' != required ]; \
	fi

bench: ## Measures how soon capacity is requested, what traces cost, and a drain beside its peers on a real control plane
	cargo bench --profile dev --bench flow
	CARGO_PROFILE_DEV_OPT_LEVEL=2 cargo bench --profile dev --bench traces
	@testbed/build --bench > /dev/null
	cargo test --test cluster bench:: -- --ignored --nocapture

outcome: ## Plays an observed Spot market: TRACE=file, NODES=4, HOURS=48 of it
	TRACE=$(TRACE) NODES=$(NODES) HOURS=$(HOURS) CARGO_PROFILE_DEV_OPT_LEVEL=2 cargo bench --profile dev --bench outcome

bench-scale: ## Measures what a cluster of 5,000 nodes costs the controller
	CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo bench --profile dev --bench scale
