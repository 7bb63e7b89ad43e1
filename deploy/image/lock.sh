#!/usr/bin/env bash
# Writes the image's lock files from pyproject.toml: every package pinned, with its hashes.
# Needs uv; run it again when the dependencies change.
#   TORCH_CPU   page or folder with the CPU wheels of torch
set -euo pipefail
cd "$(dirname "$0")/../.."
TORCH_CPU=${TORCH_CPU:-https://download.pytorch.org/whl/cpu/torch/}
common=(--quiet --extra otel --extra text --extra image --generate-hashes --no-annotate --python-version 3.11
    --python-platform x86_64-manylinux_2_28 --custom-compile-command deploy/image/lock.sh)

# tokenizers asks for a client of a model hub, to download. The image never does.
hub=()
for package in huggingface-hub hf-xet httpx2 httpcore2 anyio h11 truststore tqdm; do
    hub+=(--no-emit-package "$package")
done

compile() { # target, constraints, further options
    uv pip compile pyproject.toml <(echo setuptools) "${common[@]}" "${hub[@]}" "${@:3}" \
        --constraint <(echo "$2") -o "deploy/image/requirements-$1.txt"
}

torch=$(sed -n 's/^ *"torch==\([0-9.]*\)",$/\1/p' pyproject.toml | sort -u)
# No torch and no JVM: granian alone.
compile slim "" --extra cpu --no-emit-package filelock --no-emit-package fsspec
compile cpu "torch==$torch+cpu" --extra cpu --extra torchserve --find-links "$TORCH_CPU"
# From 1.27 on onnxruntime-gpu is built for CUDA 13, as this torch is.
compile gpu "onnxruntime-gpu>=1.28" --extra gpu --extra torchserve
