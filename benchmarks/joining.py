"""What joining a running batch gains over batches that run to their end, for requests of few and of many steps mixed.

    python benchmarks/joining.py --seconds 20

The same model does the same steps in both. With torch and transformers it is the GPT-2 of examples/decoder; without
them, or with `--model sleep`, a step sleeps for a fixed time and one for each item. Clients ask in a closed loop, in
alternation.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mosec_cy import Server, StepWorker, Worker

ROOT = Path(__file__).resolve().parent.parent
HAS_GPT2 = bool(find_spec("torch") and find_spec("transformers"))
BASE_S, ITEM_S = 0.002, 0.0001  # of a step that sleeps: as it is, and for each item


# ---- the services ----------------------------------------------------------------------------------


class Sleeper:
    """A model that does nothing, and takes the time of one that does."""

    def start(self, item: dict[str, int]) -> list[int]:
        return [item["tokens"]]

    def step(self, states: list[list[int]]) -> list[tuple[bool, Any]]:
        time.sleep(BASE_S + ITEM_S * len(states))
        for state in states:
            state[0] -= 1
        return [(state[0] == 0, None) for state in states]


def make_model(name: str) -> Any:
    if name == "sleep":
        return Sleeper()
    sys.path.insert(0, str(ROOT / "examples" / "decoder"))
    from server import Decoder  # type: ignore[import-not-found]

    return Decoder()


class Joining(StepWorker):
    def __init__(self) -> None:
        self.model = make_model(model_name())

    def start(self, item: Any) -> Any:
        return self.model.start(item)

    def step(self, states: list[Any]) -> Any:
        return self.model.step(states)


class Batches(Worker):
    """To the end of the longest; who is done takes part in no further step, and waits."""

    def __init__(self) -> None:
        self.model = make_model(model_name())

    def forward(self, data: list[Any]) -> list[Any]:
        states = [self.model.start(item) for item in data]
        outputs: list[Any] = [None] * len(states)
        places = list(range(len(states)))
        while places:
            outcomes = self.model.step([states[place] for place in places])
            for place, (_, output) in zip(places, outcomes, strict=True):
                outputs[place] = output
            places = [place for place, (done, _) in zip(places, outcomes, strict=True) if not done]
        return outputs


def model_name() -> str:
    return sys.argv[sys.argv.index("--model") + 1]


def serve(batch: int) -> None:
    server = Server()
    server.append_worker(Joining, max_batch_size=batch, route="/joining")
    server.append_worker(Batches, max_batch_size=batch, max_wait_time=5, route="/batches")
    server.run()


# ---- the clients -----------------------------------------------------------------------------------


@contextmanager
def service(options: argparse.Namespace) -> Iterator[int]:
    command = [sys.executable, __file__, "--serve", "--model", options.model, "--batch", str(options.batch)]
    command += ["--port", "0", "--timeout", "600000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            seen = ""
            for line in process.stdout:
                seen += line
                if match := re.search(r"listening on \S*:(\d+)", line):
                    threading.Thread(target=process.stdout.read).start()
                    yield int(match[1])
                    return
            sys.exit(f"the service did not start:\n{seen}")
        finally:
            process.terminate()


def load(port: int, route: str, options: argparse.Namespace, seed: int) -> tuple[float, list[tuple[int, float]]]:
    """Seconds, and (tokens, seconds) of each request, of clients that ask again as soon as they are answered."""

    def ask(number: int) -> list[tuple[int, float]]:
        chance = random.Random(seed * 1000 + number)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        taken = []
        while time.perf_counter() < end:
            tokens = options.long if chance.random() < options.share else options.short
            asked = time.perf_counter()
            connection.request("POST", route, json.dumps({"prompt": "Once", "tokens": tokens}))
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            taken.append((tokens, time.perf_counter() - asked))
        connection.close()
        return taken

    begin = time.perf_counter()
    end = begin + options.seconds / options.rounds
    with ThreadPoolExecutor(options.clients) as pool:
        taken = [one for some in pool.map(ask, range(options.clients)) for one in some]
    return time.perf_counter() - begin, taken


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def report(rounds: dict[str, list[tuple[float, list[tuple[int, float]]]]], options: argparse.Namespace) -> None:
    print(f"{'':10}{'requests/s':>12}{'steps/s':>10}{'short p50':>12}{'short p99':>12}{'long p50':>12}{'long p99':>12}")
    for route, runs in rounds.items():
        rate = statistics.median(len(taken) / seconds for seconds, taken in runs)
        steps = statistics.median(sum(tokens for tokens, _ in taken) / seconds for seconds, taken in runs)
        row = f"{route[1:]:10}{rate:12.1f}{steps:10.0f}"
        for length in (options.short, options.long):
            values = [seconds * 1000 for _, taken in runs for tokens, seconds in taken if tokens == length]
            row += f"{percentile(values, 0.5):9.0f} ms{percentile(values, 0.99):9.0f} ms"
        print(row)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="of each of the two, all rounds together (20)")
    parser.add_argument("--rounds", type=int, default=2, help="in alternation (2)")
    parser.add_argument("--clients", type=int, default=32, help="that ask in a closed loop (32)")
    parser.add_argument("--batch", type=int, default=16, help="max_batch_size (16)")
    parser.add_argument("--short", type=int, default=10, help="steps of a short request (10)")
    parser.add_argument("--long", type=int, default=200, help="of a long one (200)")
    parser.add_argument("--share", type=float, default=0.2, help="of long requests (0.2)")
    parser.add_argument("--model", choices=("gpt2", "sleep"), default="gpt2" if HAS_GPT2 else "sleep")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_known_args()[0]


def main() -> None:
    options = arguments()
    if options.serve:
        serve(options.batch)
        return
    model = {
        "gpt2": "a GPT-2 of two layers with random weights",
        "sleep": f"steps that sleep for {BASE_S * 1000:g} ms and {ITEM_S * 1000:g} ms an item",
    }
    print(f"{model[options.model]}; {options.clients} clients, max_batch_size {options.batch}")
    rounds: dict[str, list[tuple[float, list[tuple[int, float]]]]] = {"/batches": [], "/joining": []}
    with service(options) as port:
        for seed in range(options.rounds):
            for route, runs in rounds.items():
                runs.append(load(port, route, options, seed))
    report(rounds, options)


if __name__ == "__main__":
    main()
