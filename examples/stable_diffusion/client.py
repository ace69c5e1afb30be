"""Has a picture drawn: `python examples/stable_diffusion/client.py [--url URL] [--seed N] PROMPT FILE.png`"""

import argparse
import json
import urllib.request
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/inference")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("prompt")
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    body = json.dumps({"prompt": arguments.prompt, "seed": arguments.seed}).encode()
    with urllib.request.urlopen(urllib.request.Request(arguments.url, data=body, method="POST")) as response:
        size = arguments.file.write_bytes(response.read())
    print(f"{arguments.file}: {size} bytes")


if __name__ == "__main__":
    main()
