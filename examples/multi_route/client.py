"""Asks each route for the softmax of the same numbers: `python examples/multi_route/client.py [--url URL] NUMBER...`"""

import argparse
import array
import json
import sys
import urllib.request


def ask(url: str, body: bytes) -> tuple[str, bytes]:
    """The content type of the answer, and the answer."""
    with urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST")) as response:
        return response.headers["content-type"], response.read()


def little_endian(data: bytes) -> "array.array[float]":
    numbers = array.array("f", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="without a path (default: %(default)s)")
    parser.add_argument("numbers", nargs="+", type=float)
    arguments = parser.parse_args()

    kind, body = ask(f"{arguments.url}/v1/json", json.dumps(arguments.numbers).encode())
    print(kind, *(f"{value:.4f}" for value in json.loads(body)))
    kind, body = ask(f"{arguments.url}/v1/csv", ",".join(map(str, arguments.numbers)).encode())
    print(kind, *(f"{float(value):.4f}" for value in body.split(b",")))
    numbers = little_endian(array.array("f", arguments.numbers).tobytes())
    kind, body = ask(f"{arguments.url}/v1/binary", numbers.tobytes())
    print(kind, *(f"{value:.4f}" for value in little_endian(body)))
    print("served by version", ask(f"{arguments.url}/v1/version", b"?")[1].decode())


if __name__ == "__main__":
    main()
