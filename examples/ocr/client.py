"""Prints the text in pictures: `python examples/ocr/client.py [--url URL] FILE...`"""

import argparse
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def ask(url: str, path: Path) -> list[str]:
    with urllib.request.urlopen(urllib.request.Request(url, data=path.read_bytes(), method="POST")) as response:
        return [line["text"] for line in json.load(response)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/inference")
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    # Sent at the same time, they are in different stages at the same time.
    with ThreadPoolExecutor(8) as pool:
        for path, lines in zip(
            arguments.files, pool.map(lambda path: ask(arguments.url, path), arguments.files), strict=True
        ):
            for line in lines:
                print(f"{path.name}: {line}")


if __name__ == "__main__":
    main()
