"""LitServe: an API process and inference workers that batch, joined by its ZeroMQ queue."""

import litserve as ls
from served import BATCH_DELAY_S, BATCH_SIZE, PORT, WORKERS, Model, outputs


class Inference(ls.LitAPI):
    def setup(self, device):
        self.model = Model()

    def decode_request(self, request):
        return request["inputs"][0]

    def batch(self, inputs):
        return inputs

    def predict(self, rows):
        if BATCH_SIZE == 1:
            rows = [rows]
        answers = outputs(self.model.probabilities(rows))
        return answers[0] if BATCH_SIZE == 1 else answers

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"outputs": [output]}


if __name__ == "__main__":
    server = ls.LitServer(
        Inference(max_batch_size=BATCH_SIZE, batch_timeout=BATCH_DELAY_S if BATCH_SIZE > 1 else 0),
        accelerator="cpu",
        workers_per_device=WORKERS,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
