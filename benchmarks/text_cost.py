"""What texts cost a service over ready tokens: CPU time a request, in one process, without HTTP.

`python benchmarks/text_cost.py ARTIFACT TEXTS.jsonl [--column body] [--risk 0.02] [--rows 200]`
answers the same rows as strings and as token ids, a row a request, at full depth and routed, in
interleaved rounds. CPU time is counted, so that a busy machine counts less.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import skipserve
from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import JSON, RawRequest
from skipserve.service.service import Service

ROUNDS = 5


def request(inputs: Any, router: object) -> RawRequest:
    body = {"inputs": inputs, "parameters": {"router": router}}
    return RawRequest(json.dumps(body).encode(), {"content-type": JSON})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--column", default="body")
    parser.add_argument("--risk", type=float, default=0.02)
    parser.add_argument("--rows", type=int, default=200)
    options = parser.parse_args()
    lines = options.texts.open().readlines()[: options.rows]
    texts = [json.loads(line)[options.column] for line in lines]
    engine = skipserve.open(options.artifact, provider="cpu")
    service = Service(engine, ServingConfig(evidence=0.0, metrics=False))
    ids = [
        {name: tensor.tolist() for name, tensor in engine.inputs.prepare([text]).tensors.items()}
        for text in texts
    ]
    asked = {
        f"{kind}, {word}": [request(one, router) for one in rows]
        for word, router in (("full depth", "off"), ("routed", {"risk": options.risk}))
        for kind, rows in (("text", [[text] for text in texts]), ("tokens", ids))
    }
    spent: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(ROUNDS + 1):
        for name, requests in asked.items():
            began = time.process_time()
            replies = [service.answer([one])[0] for one in requests]
            if turn:  # the first one warms up
                spent[name].append(1e3 * (time.process_time() - began) / len(requests))
            assert all(reply.status == 200 for reply in replies)
    told: dict[str, Any] = {name: round(median(times), 3) for name, times in spent.items()}
    routed = [json.loads(service.answer([one])[0].body) for one in asked["text, routed"]]
    depths = [answer["outputs"][0]["depth_run"] for answer in routed]
    told["run rate"] = round(float(np.mean(depths)) / engine.manifest.depth, 3)
    told["unit"] = "ms of CPU a request"
    print(json.dumps(told))


if __name__ == "__main__":
    main()
