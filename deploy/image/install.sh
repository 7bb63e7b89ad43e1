#!/bin/sh
# In the build stage, when the locked packages are there: the package itself, and away with what
# only compiles. setuptools is the locked one.
set -eu
cd "$(dirname "$0")"
$PIP install --no-deps --no-build-isolation .
$PIP uninstall --yes setuptools wheel
cd /opt/skipserve/lib/python3.11/site-packages
find . -name '*.a' -delete
find numpy -type d -name tests -prune -exec rm -rf {} +
# What makes models and modules; nothing here does.
rm -rf onnxruntime/quantization onnxruntime/tools onnxruntime/transformers numpy/f2py
find . -name '*.pyi' -delete
# The module has ONNX Runtime in itself; this one is for programs in C, and for plug-ins of CUDA.
[ -e onnxruntime/capi/libonnxruntime_providers_cuda.so ] || rm -f onnxruntime/capi/libonnxruntime.so.*
# Debugging symbols are most of it.
strip --strip-unneeded uvloop/loop.*.so yaml/_yaml.*.so PIL/_imaging.*.so
[ -d torch ] || exit 0  # the slim one has neither torch nor TorchServe
rm -rf torch/include torch/test
find torch/bin -type f ! -name torch_shm_manager -delete
# Java would unpack this into /tmp, and /tmp may be mounted noexec.
native=META-INF/native/libnetty_transport_native_epoll_x86_64.so
python3 -m zipfile --extract ts/frontend/model-server.jar /tmp/jar
install -m 755 "/tmp/jar/$native" ts/frontend/
rm -rf /tmp/jar
