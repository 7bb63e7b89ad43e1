"""MLServer: a custom runtime; adaptive batching; one worker runs in the server's process."""

import asyncio

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import install_uvloop_event_loop
from served import BATCH_DELAY_S, BATCH_SIZE, NAME, PORT, SCRATCH, SPARE_PORTS, WORKERS, Model


class Inference(MLModel):
    async def load(self) -> bool:
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("probabilities", self.model.probabilities(rows))
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main() -> None:
    server = MLServer(
        Settings(
            debug=False,
            host="127.0.0.1",
            http_port=PORT,
            grpc_port=SPARE_PORTS[0],
            metrics_port=SPARE_PORTS[1],
            metrics_dir=str(SCRATCH),
            parallel_workers=0 if WORKERS == 1 else WORKERS,
        )
    )
    batching = {} if BATCH_SIZE == 1 else {"max_batch_size": BATCH_SIZE}
    model = ModelSettings(
        name=NAME, implementation="server.Inference", max_batch_time=BATCH_DELAY_S, **batching
    )
    await server.start([model])


if __name__ == "__main__":
    install_uvloop_event_loop()  # as its command line does
    asyncio.run(main())
