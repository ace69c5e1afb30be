"""Prints what is in pictures: `python examples/resnet50/client.py [--url URL] FILE...`"""

import argparse
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def ask(url: str, path: Path) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, data=path.read_bytes(), method="POST")) as response:
        best = json.load(response)[0]
    return f"{path.name}: {best['label']} ({best['score']:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/inference")
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    with ThreadPoolExecutor(16) as pool:
        for line in pool.map(lambda path: ask(arguments.url, path), arguments.files):
            print(line)


if __name__ == "__main__":
    main()
