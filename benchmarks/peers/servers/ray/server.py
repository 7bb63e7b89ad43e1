"""Ray Serve: a proxy, a controller and replicas, with its throughput-optimised switches on."""

import os

os.environ |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"}

import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from served import BATCH_DELAY_S, BATCH_SIZE, PORT, QUEUE_SIZE, WORKERS, Model, outputs
from starlette.requests import Request

QUIET = LoggingConfig(log_level="ERROR", enable_access_log=False)


@serve.deployment(
    num_replicas=WORKERS,
    max_ongoing_requests=QUEUE_SIZE,
    ray_actor_options={"num_cpus": 0.5},
    logging_config=QUIET,
)
class Inference:
    def __init__(self):
        self.model = Model()

    async def __call__(self, request: Request):
        rows = (await request.json())["inputs"]
        if BATCH_SIZE == 1:
            return {"outputs": outputs(self.model.probabilities(rows))}
        return {"outputs": [await self.one_of_a_batch(rows[0])]}

    @serve.batch(max_batch_size=BATCH_SIZE, batch_wait_timeout_s=BATCH_DELAY_S)
    async def one_of_a_batch(self, rows):
        return outputs(self.model.probabilities(rows))


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config=QUIET)
    serve.run(Inference.bind(), route_prefix="/predict", blocking=True)
