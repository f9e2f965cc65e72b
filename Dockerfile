# Everything of this repository on Debian 12. The eBPF objects are compiled at start, against the
# kernel that runs them.
FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
      bpftool ca-certificates clang-16 clang-format-16 curl iperf3 iproute2 iputils-ping libbpf-dev make \
      python3 python3-venv util-linux \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/achelous
COPY . .
RUN python3 -m venv build/tools && build/tools/bin/pip install --quiet 'uv>=0.9,<1' \
    && build/tools/bin/uv sync --locked --no-dev
ENV PATH=/opt/achelous/.venv/bin:$PATH ACHELOUS_BPF_DIR=/opt/achelous/build/bpf
CMD ["achelous", "up"]
