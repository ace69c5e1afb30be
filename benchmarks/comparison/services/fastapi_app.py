"""The compared services on FastAPI and uvicorn, one process, written as its users would."""

import argparse
import os

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()
service = os.environ["BENCH_SERVICE"]
embeddings = np.random.default_rng(7).standard_normal((16, 384)).astype(np.float32)

if service == "raw":

    @app.post("/inference")
    async def raw(request: Request) -> Response:
        return Response(await request.body(), media_type="application/octet-stream")

elif service == "embedding":

    @app.post("/inference")
    async def embed(data: dict) -> dict:
        return {"embeddings": embeddings.tolist()}

else:

    @app.post("/inference")
    async def echo(data: dict) -> dict:
        return data


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, access_log=False, log_level="warning")
