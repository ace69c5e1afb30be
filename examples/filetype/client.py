"""Asks a running file-type service about files: `python examples/filetype/client.py [--url URL] FILE...`"""

import argparse
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def ask(url: str, path: Path) -> dict[str, object]:
    with urllib.request.urlopen(urllib.request.Request(url, data=path.read_bytes(), method="POST")) as response:
        answer: dict[str, object] = json.load(response)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/inference")
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    # Asked at the same time, they are answered in batches.
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda path: ask(arguments.url, path), arguments.files)
    for path, answer in zip(arguments.files, answers, strict=True):
        print(f"{path}: {answer['label']} ({answer['mime_type']}), {answer['score']:.3f}")


if __name__ == "__main__":
    main()
