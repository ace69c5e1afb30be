"""Sentence embeddings by all-MiniLM-L6-v2 in several forms: one source, run with Mosec or with mosec_cy.

BENCH_API names the module to import, BENCH_SERVICE the form. Those with costs need mosec_cy.
"""

import importlib
import os
import sys

from minilm import Model, Tokenizer

api = importlib.import_module(os.environ["BENCH_API"])

BUDGET = 512  # tokens in one run of the model, with the padding


class Embed(api.Worker):
    """Texts in the order of their arrival."""

    def __init__(self):
        self.tokenizer, self.model = Tokenizer(), Model()

    def forward(self, data):
        return self.model.vectors(self.tokenizer.tokens([request["input"] for request in data]))


class EmbedOne(Embed):
    def forward(self, data):
        return super().forward([data])[0]


class EmbedSorted(Embed):
    """What an author would tune by hand: texts by length, as many at a time as BUDGET admits."""

    def forward(self, data):
        tokens = self.tokenizer.tokens([request["input"] for request in data])
        answers = [None] * len(tokens)
        run = []
        for row in sorted(range(len(tokens)), key=lambda row: len(tokens[row])):
            if run and (len(run) + 1) * len(tokens[row]) > BUDGET:
                self.embed(tokens, run, answers)
                run = []
            run.append(row)
        self.embed(tokens, run, answers)
        return answers

    def embed(self, tokens, run, answers):
        for row, answer in zip(run, self.model.vectors([tokens[row] for row in run])):
            answers[row] = answer


class Tokenize(api.Worker):
    def __init__(self):
        self.tokenizer = Tokenizer()

    def forward(self, data):
        return self.tokenizer.tokens([data["input"]])[0]

    def cost(self, result):
        return len(result)


class EmbedTokens(api.Worker):
    def __init__(self):
        self.model = Model()

    def forward(self, data):
        return self.model.vectors(data)


FORMS = {
    "costs": [(Tokenize, {}), (EmbedTokens, {"max_batch_size": 128, "cost": "previous", "pad": True})],
    "static": [(Embed, {"max_batch_size": 32, "max_wait_time": 5})],
    "by hand": [(EmbedSorted, {"max_batch_size": 128, "max_wait_time": 1})],
    "no batches": [(EmbedOne, {})],
}


def main() -> None:
    sys.argv += ["--timeout", "60000"]  # ms; none expires on a slow machine
    server = api.Server()
    for worker, arguments in FORMS[os.environ["BENCH_SERVICE"]]:
        server.append_worker(worker, **arguments)
    server.run()


if __name__ == "__main__":
    main()
