"""Text that arrives word by word: `POST /inference` with the beginning of a text, read the events.

    python examples/sse/server.py
    curl -N -d '{"prompt": "Explicit is", "words": 20}' http://127.0.0.1:8000/inference

The generator is a chain of word pairs learnt from the Zen of Python: small, but with the shape of a language model.
Each step gives every text that is inside one more word, which its client has before the next step begins. Texts join
and leave between two steps.
"""

import codecs
import contextlib
import io
import random
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from mosec_cy import Server, SSEWorker, StepWorker, ValidationError, Worker

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


@dataclass
class Text:
    """One that is being written."""

    word: str
    left: int
    chance: random.Random


class Generate(StepWorker, SSEWorker):
    example = {"prompt": "Explicit is", "words": 3, "seed": 1}

    def __init__(self) -> None:
        words = codecs.decode(this.s, "rot13").split()
        self.words = words
        self.followers: dict[str, list[str]] = defaultdict(list)
        for word, follower in zip(words, [*words[1:], words[0]], strict=True):
            self.followers[word].append(follower)

    def start(self, item: dict[str, Any]) -> Text:
        return Text(item["prompt"].split()[-1], item["words"], random.Random(item["seed"]))

    def step(self, states: list[Text]) -> list[tuple[bool, None]]:
        for index, text in enumerate(states):
            text.word = text.chance.choice(self.followers.get(text.word) or self.words)
            text.left -= 1
            self.send_stream_event(text.word, index)
        return [(text.left == 0, None) for text in states]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Prompt)
    server.append_worker(Generate, max_batch_size=16)
    server.run()
