"""Compares texts by meaning, with OpenAI's client: `python examples/embedding/client.py [--url URL] TEXT TEXT...`"""

import argparse
import sys

import numpy as np
from openai import APIStatusError, OpenAI


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="base URL (default: %(default)s)")
    parser.add_argument("texts", nargs="+")
    arguments = parser.parse_args()

    with OpenAI(base_url=arguments.url, api_key="none is needed") as client:
        try:
            answer = client.embeddings.create(model="all-MiniLM-L6-v2", input=arguments.texts)
        except APIStatusError as error:
            sys.exit(f"{error.status_code}: {error.body}")  # the reason as text
    vectors = np.array([item.embedding for item in answer.data])
    for text, similarity in zip(arguments.texts, vectors @ vectors[0], strict=True):
        print(f"{similarity:.3f} {text}")
    print(f"{answer.usage.total_tokens} tokens")


if __name__ == "__main__":
    main()
