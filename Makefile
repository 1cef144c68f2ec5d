.DEFAULT_GOAL := help
.PHONY: help demo test test-fast differential testbed lint bench

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Shows a node replaced, the fallback to on-demand and the return to Spot, in a simulated cloud
	@echo 'Building first; the first time takes minutes.' >&2
	@cargo run --quiet -- demo --once

test: testbed ## Runs all tests, also those on a real Kubernetes control plane
	cargo test

test-fast: ## Runs the tests that need no cluster
	cargo test --lib --bins --test cli --test simulation --test contract

CLUSTERS ?= 1000
SEED ?= 1

differential: testbed ## Compares the safety check with the real scheduler: CLUSTERS=1000 SEED=1
	CLUSTERS=$(CLUSTERS) SEED=$(SEED) cargo test --test cluster the_check_agrees -- --nocapture

testbed: ## Builds the control plane for the cluster tests, if it is missing
	@echo 'Looking for the testbed; if it is missing it is built, which takes minutes.' >&2
	@testbed/build > /dev/null

lint: ## Checks format, warnings, the build without the simulation, and known vulnerabilities
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features -- -D warnings
	@if cargo deny --version > /dev/null 2>&1; then cargo deny check advisories; \
	elif cargo audit --version > /dev/null 2>&1; then cargo audit; \
	else echo 'Neither cargo-deny nor cargo-audit is installed: vulnerabilities are not checked.' >&2; fi

bench: ## Measures how soon capacity is asked for, and with how many calls
	cargo bench --profile dev --bench flow
