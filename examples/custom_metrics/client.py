"""Asks for means, then shows what the server counted: `python examples/custom_metrics/client.py [--url URL]`"""

import argparse
import json
import urllib.error
import urllib.request


def ask(url: str, values: object) -> str:
    request = urllib.request.Request(f"{url}/inference", data=json.dumps(values).encode(), method="POST")
    try:
        with urllib.request.urlopen(request) as response:
            answer: str = response.read().decode()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    url = parser.parse_args().url
    for values in [1, 2, 3], [0.5], [50, 60], "no list":
        print(f"{values} -> {ask(url, values)}")
    with urllib.request.urlopen(f"{url}/metrics") as response:
        for line in response.read().decode().splitlines():
            if line.startswith("example_"):
                print(line)


if __name__ == "__main__":
    main()
