"""Sends numbers to a running service of `server.py`: `python examples/redis_ipc/client.py [--url URL] [NUMBER...]`"""

import argparse
import json
import urllib.request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/inference")
    parser.add_argument("numbers", nargs="*", type=float, default=[3.0, 1.0, 2.0])
    arguments = parser.parse_args()
    body = json.dumps({"values": arguments.numbers}).encode()
    with urllib.request.urlopen(urllib.request.Request(arguments.url, data=body, method="POST")) as response:
        print(json.load(response))


if __name__ == "__main__":
    main()
