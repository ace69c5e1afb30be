"""Prints a text as it is generated: `python examples/sse/client.py [--url URL] [--words N] [--seed N] PROMPT`"""

import argparse
import json
import sys
import urllib.request
from collections.abc import Iterator


def events(url: str, body: object) -> Iterator[tuple[str, str]]:
    """(name, data) of each event of the answer, as it arrives."""
    request = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST")
    name, data = "message", list[str]()
    with urllib.request.urlopen(request) as response:
        for raw in response:
            line = raw.decode().rstrip("\n")
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif not line and data:  # a line that begins with a colon is a comment, which keeps the connection alive
                yield name, "\n".join(data)
                name, data = "message", []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/inference")
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("prompt")
    arguments = parser.parse_args()
    body = {"prompt": arguments.prompt, "words": arguments.words, "seed": arguments.seed}
    print(arguments.prompt, end="", flush=True)
    for name, data in events(arguments.url, body):
        if name == "error":
            sys.exit(f"\n{data}")
        print(f" {data}", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
