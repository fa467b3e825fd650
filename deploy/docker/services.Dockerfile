# syntax=docker/dockerfile:1
# The three services: one build, one image each.
#
#   docker build -f deploy/docker/services.Dockerfile --target core-services  -t switchboard/core-services  .
#   docker build -f deploy/docker/services.Dockerfile --target socket-gateway -t switchboard/socket-gateway .
#   docker build -f deploy/docker/services.Dockerfile --target fanout-worker  -t switchboard/fanout-worker  .

ARG RUST_VERSION=1.95
ARG DEBIAN_SUITE=bookworm

FROM rust:${RUST_VERSION}-${DEBIAN_SUITE} AS build
WORKDIR /src
# rust-toolchain.toml is left out (.dockerignore): the image's own toolchain is the one.
COPY . .
# The caches outlive the build, so the binaries are copied out of them. `set -eu`: a failed copy fails the build.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    set -eu; \
    cargo build --release --locked --package core-services --package socket-gateway --package fanout-worker; \
    install -D --target-directory=/out target/release/core-services target/release/socket-gateway target/release/fanout-worker

FROM debian:${DEBIAN_SUITE}-slim AS runtime
# The folder for core's signing keys is here so that a named volume mounted on it has its owner.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent switchboard \
    && install -d -o switchboard -g switchboard -m 0700 /var/lib/switchboard/signing-keys
COPY --chmod=0755 deploy/docker/healthcheck /usr/local/bin/healthcheck
USER 10001:10001
STOPSIGNAL SIGTERM

FROM runtime AS core-services
COPY --from=build /out/core-services /usr/local/bin/core-services
EXPOSE 8081 9081
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["healthcheck", "http", "9081", "/readyz"]
ENTRYPOINT ["core-services"]
CMD ["--config", "/etc/switchboard/config.yaml"]

FROM runtime AS socket-gateway
COPY --from=build /out/socket-gateway /usr/local/bin/socket-gateway
EXPOSE 8082 9082
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["healthcheck", "http", "9082", "/readyz"]
ENTRYPOINT ["socket-gateway"]
CMD ["--config", "/etc/switchboard/config.yaml"]

FROM runtime AS fanout-worker
COPY --from=build /out/fanout-worker /usr/local/bin/fanout-worker
EXPOSE 8083
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["healthcheck", "http", "8083", "/readyz"]
ENTRYPOINT ["fanout-worker"]
CMD ["--config", "/etc/switchboard/config.yaml"]
