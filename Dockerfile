# The program alone on a small system, CPU only:
#   docker build -t vitadapt .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" vitadapt finetune --config my.toml
# It brings a C compiler, and no C++ is compiled.
FROM rust:1.94-slim-bookworm AS build
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
