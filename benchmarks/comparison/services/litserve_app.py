"""The compared services on LitServe, one worker, written as its users would."""

import argparse
import os

import litserve
import numpy as np
from fastapi import Request, Response


class Echo(litserve.LitAPI):
    def setup(self, device):
        self.batched = self.max_batch_size > 1

    def decode_request(self, request):
        return request

    def batch(self, inputs):
        return inputs

    def predict(self, data):
        return data

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return output


class Embed(Echo):
    def setup(self, device):
        self.embeddings = np.random.default_rng(7).standard_normal((16, 384)).astype(np.float32)

    def predict(self, data):
        return {"embeddings": self.embeddings.tolist()}


class RawEcho(Echo):
    async def decode_request(self, request: Request):
        return await request.body()

    def encode_response(self, output):
        return Response(content=output, media_type="application/octet-stream")


APIS = {
    "echo": lambda: Echo(api_path="/inference"),
    "batch": lambda: Echo(api_path="/inference", max_batch_size=32, batch_timeout=0.001),
    "embedding": lambda: Embed(api_path="/inference"),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    server = litserve.LitServer(APIS[os.environ["BENCH_SERVICE"]](), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=parser.parse_args().port,
        generate_client_file=False,
        access_log=False,
        log_level="warning",
    )
