"""BentoML: one service; its adaptive batching may hold a request for up to the delay."""

import os

import bentoml
from served import BATCH_SIZE, PORT, WORKERS, Model, outputs

# Beyond this BentoML answers 503; its window adapts far below it.
LATENCY_GOAL_MS = 1000


@bentoml.service(
    workers=WORKERS,
    traffic={"timeout": 60},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Inference:
    def __init__(self):
        self.model = Model()

    if BATCH_SIZE == 1:

        @bentoml.api
        async def predict(self, inputs: list[list[float]]) -> list[dict]:
            return outputs(self.model.probabilities(inputs))

    else:

        @bentoml.api(batchable=True, max_batch_size=BATCH_SIZE, max_latency_ms=LATENCY_GOAL_MS)
        async def predict(self, inputs: list[list[float]]) -> list[dict]:
            return outputs(self.model.probabilities(inputs))


if __name__ == "__main__":
    arguments = ["serve", "server:Inference", "--host", "127.0.0.1", "--port", str(PORT)]
    os.execvp("bentoml", ["bentoml", *arguments])
