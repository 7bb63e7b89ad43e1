"""mosec: a Rust front end that batches for Python workers."""

import json
import sys

from mosec import Server, Worker
from served import BATCH_DELAY_S, BATCH_SIZE, PORT, WORKERS, Model, outputs


class Inference(Worker):
    def __init__(self):
        self.model = Model()

    def serialize(self, data):
        # Its own indents, which Python's json does without C.
        return json.dumps(data).encode()

    def forward(self, data):
        if BATCH_SIZE == 1:
            return {"outputs": outputs(self.model.probabilities(data["inputs"]))}
        rows = [row for request in data for row in request["inputs"]]
        return [{"outputs": [output]} for output in outputs(self.model.probabilities(rows))]


if __name__ == "__main__":
    sys.argv += ["--address", "127.0.0.1", "--port", str(PORT), "--log-level", "error"]
    server = Server()
    server.append_worker(
        Inference,
        num=WORKERS,
        max_batch_size=BATCH_SIZE,
        max_wait_time=round(BATCH_DELAY_S * 1e3),
    )
    server.run()
