"""What may be asked of the files of an artifact: what runs them, in which precision, and where."""

from __future__ import annotations

from typing import Literal

BackendName = Literal["onnxruntime", "torchscript"]
AskedPrecision = Literal["auto", "fp32", "fp16", "int8"]
AskedProvider = Literal["auto", "cpu", "cuda"]
