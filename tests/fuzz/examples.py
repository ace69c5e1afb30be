"""How many examples a random test tries: `make fuzz` multiplies what is enough for each change."""

import os


def examples(usual: int) -> int:
    """`usual`, times FUZZ_FACTOR (default 1)."""
    return usual * int(os.environ.get("FUZZ_FACTOR", "1"))
