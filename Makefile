# Each target is a line or two; what is longer is a script.

.PHONY: build demo test kill lint bench

build:
	cargo build --release --workspace --locked

demo: build
	demo/run

test:
	tests/compat/setup
	cargo build --workspace --locked
	cargo test --workspace --locked
	tests/compat/run

kill:
	KILLS=200 cargo test --test kill --locked -- --nocapture

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

bench: build
	tests/compat/setup
	bench/run
