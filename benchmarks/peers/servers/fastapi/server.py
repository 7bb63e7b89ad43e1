"""FastAPI: one async endpoint under uvicorn with uvloop and httptools."""

from fastapi import FastAPI
from pydantic import BaseModel
from served import PORT, WORKERS, Model, Row, outputs

app = FastAPI()
model = Model()


class Request(BaseModel):
    inputs: list[Row]


@app.post("/predict")
async def predict(request: Request):
    return {"outputs": outputs(model.probabilities(request.inputs))}


if __name__ == "__main__":
    import uvicorn

    uvicorn.run("server:app", port=PORT, workers=WORKERS, access_log=False, log_level="warning")
