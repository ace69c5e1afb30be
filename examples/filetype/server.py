"""What kind of file is this? `POST /inference` with the bytes of any file; the answer is JSON.

python examples/filetype/server.py
curl --data-binary @some-file http://127.0.0.1:8000/inference
"""

import os
from typing import Any

import numpy as np
from filetype_model import FileTypeModel, Tokens, Verdict

from mosec_cy import Server, Worker

MAX_BATCH_SIZE = 32
BLANK = np.zeros(2048, np.int32)


class FileType(Worker):
    zero_copy = True  # `deserialize` looks at the request where it arrived: of a large file only two blocks are touched
    multi_examples = [[BLANK], [BLANK] * MAX_BATCH_SIZE]  # warm-up with the smallest and the largest batch

    def __init__(self) -> None:
        self.model = FileTypeModel(threads=len(os.sched_getaffinity(0)))

    def deserialize(self, data: memoryview) -> Tokens | Verdict:
        return self.model.prepare(data)

    def forward(self, data: list[Any]) -> list[Verdict]:
        return self.model.classify(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(FileType, num=1, max_batch_size=MAX_BATCH_SIZE)
    server.run()
