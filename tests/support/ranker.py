"""A small ranker that was brought, and rows of later queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from residual_graphs import WIDTH, Graph

from skipserve.artifacts.artifact import Artifact, open_artifact
from skipserve.building.buildfile import read_build_file
from skipserve.building.sourced import Sourced
from skipserve.building.steps import run_steps
from skipserve.signature import BATCH, TensorSpec

RISK, TOP, LISTED, QUERIES, LATER = 0.1, 2, 6, 600, 200
WIDE = 16
INPUT = TensorSpec(name="ids", dtype="int64", shape=(BATCH, 2))
OUTPUT = TensorSpec(name="y", dtype="float32", shape=(BATCH, 1))
SMALL, MOVE = np.array([6], np.float32), np.full((1, WIDE), 0.5, np.float32)
BUILD = f"""
name = "ranker"
[source]
onnx = "net.onnx"
[data]
rows = "rows.npz"
query = "query"
[task]
kind = "score"
tolerance = 0.8
top = {TOP}
[exits]
at = [0, 2]
first = 0
hidden = 0
corrupted = false
[router]
signal = "norm"
risks = [{RISK}]
[serving]
risk = {RISK}
"""


def network() -> onnx.ModelProto:
    """A residual network whose blocks move rows of small norm, and no others."""
    made = Graph()
    x = made.weigh("x", WIDTH, WIDE)
    for _ in range(3):
        y = made.weigh(x, WIDE, WIDE)
        square = made.op("ReduceSum", made.op("Mul", y, y), made.constant(np.array([1])))
        small = made.op("Relu", made.op("Sub", made.constant(SMALL), square))
        x = made.op("Add", x, made.op("Mul", small, made.constant(MOVE)))
    return made.model(made.weigh(x, WIDE, 1), shape=["batch", 1])


class Made:
    """A ranker that was brought, and rows of later queries."""

    def __init__(self, folder: Path) -> None:
        onnx.save(network(), folder / "net.onnx")
        count = (QUERIES + LATER) * LISTED
        rows = np.random.default_rng(0).standard_normal((count, WIDTH)).astype(np.float32)
        query = np.repeat(np.arange(QUERIES + LATER), LISTED)
        known = slice(QUERIES * LISTED)
        # A query's rows need not stand together.
        order = np.random.default_rng(1).permutation(QUERIES * LISTED)
        np.savez(folder / "rows.npz", x=rows[known][order], query=query[known][order])
        (folder / "ranker.toml").write_text(BUILD)
        self.build = read_build_file(folder / "ranker.toml")
        self.sourced = Sourced(self.build)
        self.said: list[str] = []
        run_steps(self.build, lambda epoch: None, self.said.append, sourced=self.sourced)
        self.artifact: Artifact = open_artifact(self.build.artifact)
        self.folder, self.rows, self.query = folder, rows[known.stop :], query[known.stop :]
        certify = self.sourced.rows.certify
        columns = {"x": certify.rows.tensors["x"], "query": certify.queries}
        np.savez(folder / "certify.npz", **columns)
