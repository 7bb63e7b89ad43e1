# skipserve as an image: `docker build -t skipserve .` (CPU), `--target gpu` (CUDA 13), `--target slim`
# (granian alone, without torch and Java).
# docs/image.md says what the versions are and why; deploy/image/ makes the lock files and tries the
# result without a daemon.
ARG BASE=docker.io/library/debian:bookworm-20250520-slim

FROM ${BASE} AS python
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get upgrade -y \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /usr/share/locale/* /usr/share/man/*

# --- what builds, and stays behind ---

FROM python AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        binutils ca-certificates python3-pip \
    && python3 -m venv --without-pip /opt/skipserve
WORKDIR /src
# A site's own index or certificate: `--secret id=pip.conf,src=FILE`; it stays out of every layer.
ENV PIP="python3 -m pip --python /opt/skipserve/bin/python --no-cache-dir"

FROM build AS build-slim
COPY deploy/image/requirements-slim.txt .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    $PIP install --require-hashes --no-deps -r requirements-slim.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY deploy/image/install.sh .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf ./install.sh

FROM build AS build-cpu
# The CPU build of torch is not on PyPI.
ARG TORCH_CPU=https://download.pytorch.org/whl/cpu/torch/
COPY deploy/image/requirements-cpu.txt .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    $PIP install --require-hashes --no-deps --find-links "$TORCH_CPU" -r requirements-cpu.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY deploy/image/install.sh .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf ./install.sh

FROM build AS build-gpu
COPY deploy/image/requirements-gpu.txt .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    $PIP install --require-hashes --no-deps -r requirements-gpu.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY deploy/image/install.sh .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf ./install.sh

# --- what serves ---

FROM python AS serve
ENV PATH=/opt/skipserve/bin:$PATH \
    LANG=C.UTF-8 \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1 \
    SKIPSERVE_LOG_FORMAT=json \
    SKIPSERVE_STATE=/state
# What an operator decided; a volume here outlives the container.
RUN install -d -o 10001 -g 10001 /state
# Archives in this folder are baked in; a volume on /models replaces them.
ARG MODELS=model_store
COPY ${MODELS} /models
WORKDIR /tmp
USER 10001:10001
EXPOSE 8080 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python3", "-I", "-S", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('SKIPSERVE_METRICS_PORT', 9464)), timeout=2); c.request('GET', '/ready'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["skipserve"]
CMD ["serve", "--host", "0.0.0.0", "--model-store", "/models"]

FROM serve AS slim
COPY --from=build-slim /opt/skipserve /opt/skipserve

# The two with torch serve behind TorchServe; `serve` without --server is granian in all three.
FROM serve AS torchserve
CMD ["serve", "--server", "torchserve", "--host", "0.0.0.0", "--model-store", "/models"]

FROM torchserve AS gpu
# CUDA itself comes with torch's wheels; ONNX Runtime finds it there. The driver is the host's.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/opt/skipserve/lib/python3.11/site-packages/nvidia/cu13/lib:/opt/skipserve/lib/python3.11/site-packages/nvidia/cudnn/lib
COPY --from=build-gpu /opt/skipserve /opt/skipserve

FROM torchserve AS cpu
COPY --from=build-cpu /opt/skipserve /opt/skipserve
