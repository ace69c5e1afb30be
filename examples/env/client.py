"""Asks often, and tells which replica has which GPU: `python examples/env/client.py [--url URL] [--requests N]`"""

import argparse
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor


def ask(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(urllib.request.Request(url, data=b"{}", method="POST")) as response:
        answer = json.load(response)
    return answer["worker_id"], answer["gpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/inference")
    parser.add_argument("--requests", type=int, default=100)
    arguments = parser.parse_args()
    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(ask, [arguments.url] * arguments.requests))
    for worker_id, gpu in sorted(answers):
        print(f"replica {worker_id}: GPU {gpu}")


if __name__ == "__main__":
    main()
