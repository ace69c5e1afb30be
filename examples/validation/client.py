"""Asks a running service of `server.py`, rightly and wrongly: `python examples/validation/client.py [--url URL]`"""

import argparse
import base64
import json
import urllib.error
import urllib.request
from typing import Any

import msgpack

GREEN = b"\0\xff\0" * 6


def ask(url: str, body: bytes) -> tuple[int, bytes]:
    """The status and the body of the answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST")) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    url = parser.parse_args().url

    status, answer = ask(f"{url}/msgpack", msgpack.packb({"width": 3, "height": 2, "pixels": GREEN}))
    print(status, msgpack.unpackb(answer))
    status, answer = ask(
        f"{url}/json", json.dumps({"width": 3, "height": 2, "pixels": base64.b64encode(GREEN).decode()}).encode()
    )
    print(status, json.loads(answer))

    wrong: list[dict[str, Any]] = [
        {"width": "3", "height": 2, "pixels": GREEN},
        {"width": 3, "height": 0, "pixels": GREEN},
        {"width": 3, "height": 2},
        {"width": 3, "height": 2, "pixels": GREEN, "colour": "green"},
        {"width": 3, "height": 3, "pixels": GREEN},
    ]
    for request in wrong:
        status, answer = ask(f"{url}/msgpack", msgpack.packb(request))
        print(status, answer.decode())
    status, answer = ask(f"{url}/msgpack", b"\xc1")
    print(status, answer.decode())


if __name__ == "__main__":
    main()
