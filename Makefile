# Each target is a line or two; what is longer is a script.

.PHONY: build image demo test test-charts test-containers kill lint bench

build:
	cargo build --release --workspace --locked

image:
	docker build --build-arg REVISION=$$(git rev-parse HEAD) --target tollgate --tag tollgate:dev .
	docker build --build-arg REVISION=$$(git rev-parse HEAD) --target simulator --tag marketplace-simulator:dev .

demo: build
	demo/run

test: test-charts
	tests/compat/setup
	cargo build --workspace --locked
	cargo test --workspace --locked
	tests/compat/run

kill:
	KILLS=200 cargo test --test kill --locked -- --nocapture
	KILLS=100 cargo test --test kill_saas --locked -- --nocapture

test-charts:
	tests/charts/setup
	tests/charts/run

test-containers:
	tests/compat/setup
	tests/containers/setup
	tests/containers/run

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

bench: build
	tests/compat/setup
	bench/run
