#!/usr/bin/env bash
# Builds an image without a daemon: `deploy/image/build.sh [slim|cpu|gpu] [further options of buildah]`.
# Needs root, buildah and, where no registry can be reached, debootstrap (Debian has both).
#   STORAGE     where images go (default .image/, git-ignored; 3 GB while building)
#   MIRROR      Debian mirror for the base image
#   TORCH_CPU   page or folder with the CPU wheels of torch
#   PIP_CONF    pip configuration for the build only, such as a site's own index
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:-cpu}
STORAGE=${STORAGE:-$PWD/.image}
MIRROR=${MIRROR:-http://deb.debian.org}
base=$(sed -n 's/^ARG BASE=//p' Dockerfile)
mkdir -p "$STORAGE"
buildah=(buildah --storage-driver vfs --root "$STORAGE/root" --runroot "$STORAGE/run")
options=(--isolation chroot --format docker --target "$target" --tag "skipserve:$target")
[ -z "${PIP_CONF:-}" ] || options+=(--secret "id=pip.conf,src=$PIP_CONF")
# A folder of wheels must be seen from inside.
if [ -d "${TORCH_CPU:-}" ]; then
    options+=(--volume "$TORCH_CPU:/wheels:ro" --build-arg TORCH_CPU=/wheels)
fi

# The base image of the Dockerfile; without a registry, the same Debian from its mirror.
if ! "${buildah[@]}" inspect --type image "$base" >/dev/null 2>&1 &&
    ! "${buildah[@]}" pull --quiet "$base"; then
    echo "no registry has $base: making it with debootstrap"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    debootstrap --variant=minbase bookworm "$scratch" "$MIRROR/debian" >"$STORAGE/debootstrap.log"
    for suite in "debian bookworm" "debian bookworm-updates" "debian-security bookworm-security"; do
        echo "deb $MIRROR/$suite main"
    done >"$scratch/etc/apt/sources.list"
    rm -rf "$scratch"/var/{cache/apt,lib/apt/lists,log}/* "$scratch"/usr/share/{doc,man,locale}/*
    container=$("${buildah[@]}" from scratch)
    "${buildah[@]}" add --quiet "$container" "$scratch" / >/dev/null
    "${buildah[@]}" commit --quiet --rm "$container" "$base" >/dev/null
fi

"${buildah[@]}" build "${options[@]}" "${@:2}" .
"${buildah[@]}" images
