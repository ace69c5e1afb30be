"""Sends random vectors at the same time: `python examples/jax_jitted/client.py [--url URL] [--requests N]`"""

import argparse
import json
import random
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor


def ask(url: str, vector: list[float]) -> int:
    request = urllib.request.Request(url, data=json.dumps(vector).encode(), method="POST")
    with urllib.request.urlopen(request) as response:
        label: int = json.load(response)["label"]
    return label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/inference")
    parser.add_argument("--requests", type=int, default=200)
    arguments = parser.parse_args()
    source = random.Random(0)
    vectors = [[source.gauss(0, 1) for _ in range(64)] for _ in range(arguments.requests)]
    with ThreadPoolExecutor(16) as pool:
        labels = Counter(pool.map(lambda vector: ask(arguments.url, vector), vectors))
    for label, count in sorted(labels.items()):
        print(f"label {label}: {count}")


if __name__ == "__main__":
    main()
