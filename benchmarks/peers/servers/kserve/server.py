"""KServe's Python server; its batcher is a sidecar in Go, so there is none here."""

import logging
from functools import cached_property

from kserve import Model as KServeModel
from kserve import ModelServer
from served import NAME, PORT, WORKERS, Model, outputs

logging.disable(logging.INFO)  # a line for each request


class Inference(KServeModel):
    def __init__(self, name):
        super().__init__(name)
        self.ready = True

    @cached_property  # each worker opens its own
    def model(self):
        return Model()

    async def predict(self, payload, headers=None):
        return {"predictions": outputs(self.model.probabilities(payload["instances"]))}


if __name__ == "__main__":
    server = ModelServer(
        http_port=PORT, workers=WORKERS, enable_grpc=False, enable_latency_logging=False
    )
    server.start([Inference(NAME)])
