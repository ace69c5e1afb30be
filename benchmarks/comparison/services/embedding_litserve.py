"""Sentence embeddings by all-MiniLM-L6-v2 on LitServe, one worker, batches of 32 within 5 ms."""

import argparse

import litserve
from minilm import Model, Tokenizer


class Embed(litserve.LitAPI):
    def setup(self, device):
        self.tokenizer, self.model = Tokenizer(), Model()

    def decode_request(self, request):
        return request["input"]

    def batch(self, inputs):
        return inputs

    def predict(self, data):
        return self.model.vectors(self.tokenizer.tokens(data))

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    api = Embed(api_path="/inference", max_batch_size=32, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1",
        port=parser.parse_args().port,
        generate_client_file=False,
        access_log=False,
        log_level="warning",
    )
