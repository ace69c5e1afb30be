"""Text that arrives word by word: `POST /inference` with the beginning of a text, read the events.

    python examples/sse/server.py
    curl -N -d '{"prompt": "Explicit is", "words": 20}' http://127.0.0.1:8000/inference

The generator is a chain of word pairs learnt from the Zen of Python: small, but with the shape of a language model.
Each step gives every text of the batch one more word, which its client has before the next step begins.
"""

import codecs
import contextlib
import io
import random
from collections import defaultdict
from typing import Any

from mosec_cy import Server, SSEWorker, ValidationError, Worker

with contextlib.redirect_stdout(io.StringIO()):
    import this

MOST_WORDS = 1000


class Prompt(Worker):
    example = {"prompt": "Explicit is", "words": 3, "seed": 1}

    def forward(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict) or not isinstance(data.get("prompt"), str) or not data["prompt"].strip():
            raise ValidationError('send {"prompt": "some words", "words": 20, "seed": 1}')
        words, seed = data.get("words", 20), data.get("seed", 0)
        if not isinstance(words, int) or not isinstance(seed, int) or not 1 <= words <= MOST_WORDS:
            raise ValidationError(f"words must be an integer from 1 to {MOST_WORDS}, seed an integer")
        return {"prompt": data["prompt"], "words": words, "seed": seed}


class Generate(SSEWorker):
    example = [{"prompt": "Explicit is", "words": 3, "seed": 1}]

    def __init__(self) -> None:
        words = codecs.decode(this.s, "rot13").split()
        self.words = words
        self.followers: dict[str, list[str]] = defaultdict(list)
        for word, follower in zip(words, [*words[1:], words[0]], strict=True):
            self.followers[word].append(follower)

    def next_word(self, word: str, chance: random.Random) -> str:
        return chance.choice(self.followers.get(word) or self.words)

    def forward(self, data: list[dict[str, Any]]) -> None:
        last = [item["prompt"].split()[-1] for item in data]
        chances = [random.Random(item["seed"]) for item in data]
        open_ = set(range(len(data)))
        for step in range(MOST_WORDS):
            for index in sorted(open_):
                last[index] = self.next_word(last[index], chances[index])
                # False: that client has left. The others of the batch go on.
                if not self.send_stream_event(last[index], index=index) or step + 1 == data[index]["words"]:
                    open_.remove(index)
            if not open_:
                return


if __name__ == "__main__":
    server = Server()
    server.append_worker(Prompt)
    server.append_worker(Generate, max_batch_size=16)
    server.run()
