"""Asks for long and short texts at once: `python examples/decoder/client.py [--url URL]` prints them as they come."""

import argparse
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed

LENGTHS = (200, 200, 200, 10, 10, 10)


def ask(url: str, tokens: int) -> str:
    body = json.dumps({"prompt": "Once", "tokens": tokens}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST")) as response:
        text: str = json.load(response)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/inference")
    url = parser.parse_args().url
    with ThreadPoolExecutor(len(LENGTHS)) as pool:
        for done in as_completed([pool.submit(ask, url, tokens) for tokens in LENGTHS]):
            print(f"{len(done.result())} tokens")


if __name__ == "__main__":
    main()
