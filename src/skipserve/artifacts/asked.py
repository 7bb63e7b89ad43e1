"""The files of an artifact: in what form they are, and what may be asked of them."""

from __future__ import annotations

from typing import Literal

Format = Literal["onnx", "torchscript"]
Precision = Literal["fp32", "fp16", "int8"]
BackendName = Literal["onnxruntime", "torchscript"]
Provider = Literal["cpu", "cuda"]
AskedPrecision = Literal["auto", "fp32", "fp16", "int8"]
AskedProvider = Literal["auto", "cpu", "cuda"]
# What each backend opens, and the package that it comes with.
FORMATS: dict[BackendName, Format] = {"onnxruntime": "onnx", "torchscript": "torchscript"}
LIBRARIES: dict[BackendName, str] = {"onnxruntime": "onnxruntime", "torchscript": "torch"}
