# tollgate on nothing but its CA certificates, and with --target simulator the marketplace-simulator, which the first never contains.
#
# BUILDER is any image with Rust 1.95, a C compiler, a shell and CA certificates: a digest in place of the tag, or an image of your own where
# nothing can be pulled. Nothing here depends on the architecture: under buildx each platform is built on a node of its own kind, or emulated.
# The labels take VERSION and REVISION.

ARG BUILDER=rust:1.95.0-slim-bookworm

FROM ${BUILDER} AS workspace
WORKDIR /src
# With a target of their own, build scripts and macros stay dynamic; they can't be static.
ENV RUSTFLAGS="-C target-feature=+crt-static"
COPY Cargo.toml Cargo.lock build.rs ./
COPY link link
COPY benches benches
COPY simulator/Cargo.toml simulator/
RUN rustc -vV | sed -n 's/^host: //p' >/target \
 && mkdir -p src simulator/src \
 && echo 'fn main() {}' >src/main.rs && cp src/main.rs simulator/src/ \
 && touch src/lib.rs simulator/src/lib.rs

FROM workspace AS build-simulator
RUN cargo build --release --locked --target "$(cat /target)" -p marketplace-simulator
COPY simulator simulator
# Cargo goes by the time of a file, and what is copied may be older than the empty sources before it.
RUN find simulator/src -type f -exec touch {} + \
 && cargo build --release --locked --target "$(cat /target)" -p marketplace-simulator \
 && mkdir -p /image/keys \
 && cp "target/$(cat /target)/release/marketplace-simulator" /image/

FROM workspace AS build-tollgate
RUN cargo build --release --locked --target "$(cat /target)" -p tollgate --bin tollgate
COPY openapi.yaml ./
COPY src src
RUN find src -type f -exec touch {} + \
 && cargo build --release --locked --target "$(cat /target)" -p tollgate --bin tollgate \
 && mkdir -p /image/etc/ssl/certs /image/empty \
 && cp "target/$(cat /target)/release/tollgate" /image/ \
 && sed -n '/BEGIN CERTIFICATE/,/END CERTIFICATE/p' /etc/ssl/certs/ca-certificates.crt >/image/etc/ssl/certs/ca-certificates.crt \
 && test -s /image/etc/ssl/certs/ca-certificates.crt

FROM scratch AS simulator
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="marketplace-simulator" \
      org.opencontainers.image.description="The AWS Marketplace Metering Service for tests: never for production" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build-simulator /image/marketplace-simulator /marketplace-simulator
COPY --from=build-simulator --chown=65532:65532 /image/keys /keys
USER 65532:65532
VOLUME ["/keys"]
EXPOSE 8430
ENTRYPOINT ["/marketplace-simulator"]
CMD ["--listen", "0.0.0.0:8430", "--allow-remote", "--keys-dir", "/keys"]
HEALTHCHECK --interval=1s --timeout=3s CMD ["/marketplace-simulator", "healthcheck"]

FROM scratch AS tollgate
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tollgate" \
      org.opencontainers.image.description="Proves entitlement and delivers usage exactly once for paid containers on AWS Marketplace" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build-tollgate /image/tollgate /tollgate
COPY --from=build-tollgate /image/etc /etc
COPY --from=build-tollgate --chown=65532:65532 /image/empty /run/tollgate
COPY --from=build-tollgate --chown=65532:65532 /image/empty /var/lib/tollgate
USER 65532:65532
# Volumes take their owner from here on ECS and Docker; all else may be read-only.
VOLUME ["/run/tollgate", "/var/lib/tollgate"]
EXPOSE 8422
ENTRYPOINT ["/tollgate"]
# As long as AWS may be asked again, "not ready" is no failure.
HEALTHCHECK --interval=2s --timeout=4s --start-period=30m CMD ["/tollgate", "healthcheck"]
