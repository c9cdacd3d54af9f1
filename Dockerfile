# The program alone on a small system, CPU only:
#   docker build -t vitadapt .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" vitadapt finetune --config my.toml
FROM rust:1.94-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
COPY --from=build /source/target/release/vitadapt /usr/local/bin/vitadapt
# What it computes and downloads stays in the mounted folder.
ENV XDG_CACHE_HOME=/data/.cache
WORKDIR /data
USER 1000
ENTRYPOINT ["vitadapt"]
