"""Triton through pytriton: its front end and dynamic batcher in C++, the model in Python."""

import os
import sysconfig

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from served import BATCH_DELAY_S, BATCH_SIZE, NAME, PORT, SPARE_PORTS, WORKERS, Model

if __name__ == "__main__":
    # Its Python back end takes the first libpython of this version, ours or not.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    models = [Model() for _ in range(WORKERS)]

    def instance(model):
        @batch
        def infer(inputs):
            return {"probabilities": model.probabilities(inputs)}

        return infer

    delay_us = round(BATCH_DELAY_S * 1e6) if BATCH_SIZE > 1 else 0
    batcher = DynamicBatcher(max_queue_delay_microseconds=delay_us)
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=PORT,
        grpc_address="127.0.0.1",
        grpc_port=SPARE_PORTS[0],
        metrics_address="127.0.0.1",
        metrics_port=SPARE_PORTS[1],
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=NAME,
            infer_func=[instance(model) for model in models],
            inputs=[Tensor(name="inputs", dtype=np.float32, shape=tuple(models[0].row_shape))],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(models[0].classes,))],
            config=ModelConfig(max_batch_size=BATCH_SIZE, batcher=batcher),
        )
        triton.serve()
