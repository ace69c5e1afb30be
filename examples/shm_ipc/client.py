"""Measures a running service of `server.py`: `python examples/shm_ipc/client.py [--url URL] [--requests N] [SIZE...]`

Prints for each size of array the median time of a request, in ms, by each way from stage to stage. Requests are sent
one after another, the ways in turn, so that all of them meet the same machine.
"""

import argparse
import http.client
import json
import statistics
import time
from urllib.parse import urlsplit

WAYS = ("alone", "pickle", "numbin", "redis")


def ask(connection: http.client.HTTPConnection, way: str, size: int) -> float:
    """How long one request takes, in ms; a ValueError says why it was refused."""
    start = time.perf_counter()
    connection.request("POST", f"/{way}", json.dumps({"bytes": size}))
    response = connection.getresponse()
    body = response.read()
    took = (time.perf_counter() - start) * 1000
    if response.status != 200:
        raise ValueError(f"/{way} answers {response.status}: {body.decode()}")
    if json.loads(body) != {"bytes": size, "last": 1.0}:
        raise ValueError(f"/{way} answers {body!r}")
    return took


def has(connection: http.client.HTTPConnection, way: str) -> bool:
    connection.request("GET", f"/{way}")
    response = connection.getresponse()
    response.read()
    return response.status != 404


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=100, help="of each size by each way (default: 100)")
    parser.add_argument("sizes", nargs="*", type=int, default=[1024 * 4**n for n in range(8)], help="bytes")
    arguments = parser.parse_args()
    connection = http.client.HTTPConnection(urlsplit(arguments.url).netloc)
    ways = [way for way in WAYS if has(connection, way)]
    print("KiB".rjust(8), *(way.rjust(10) for way in ways))
    for size in arguments.sizes:
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(arguments.requests):
            for way in ways:
                times[way].append(ask(connection, way, size))
        print(f"{size // 1024:8}", *(f"{statistics.median(times[way]):10.3f}" for way in ways))


if __name__ == "__main__":
    main()
