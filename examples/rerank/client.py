"""Orders documents by a query: `python examples/rerank/client.py [--url URL] [--top N] QUERY DOCUMENT...`"""

import argparse
import json
import urllib.request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1/rerank")
    parser.add_argument("--top", type=int, help="how many to show (default: all)")
    parser.add_argument("query")
    parser.add_argument("documents", nargs="+")
    arguments = parser.parse_args()

    asked = {"query": arguments.query, "documents": arguments.documents, "top_n": arguments.top}
    body = json.dumps(asked).encode()
    with urllib.request.urlopen(urllib.request.Request(arguments.url, data=body, method="POST")) as response:
        ranking = json.load(response)
    for result in ranking["results"]:
        print(f"{result['relevance_score']:.3f} {arguments.documents[result['index']]}")


if __name__ == "__main__":
    main()
