"""Magika's model of file contents, run in batches.

Weights, thresholds and the table of content types are files of the `magika` package. The model sees the first and the
last bytes of a file without the white space around them, so that a large file costs no more than a small one.
"""

import json
import os
from importlib import resources
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]


class Verdict(TypedDict):
    label: str
    mime_type: str
    description: str
    score: float


def model_folder() -> Path:
    (folder,) = (path for path in Path(str(resources.files("magika") / "models")).iterdir() if path.is_dir())
    return folder


class FileTypeModel:
    """Tells what kind of file some bytes are.

    `prepare` turns the bytes of one file into what `classify` takes; `classify` makes one run of the model for a batch.
    """

    def __init__(self, threads: int) -> None:
        """`threads`: how many of them one run may use; they share the items of a batch."""
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import, which would begin to report to its makers
        import onnxruntime  # here, so that only workers load it

        folder = model_folder()
        config = json.loads((folder / "config.min.json").read_bytes())
        self.head: int = config["beg_size"]
        self.tail: int = config["end_size"]
        self.block: int = config["block_size"]
        self.padding: int = config["padding_token"]
        self.shortest: int = config["min_file_size_for_dl"]
        self.labels: list[str] = config["target_labels_space"]
        self.renamed: dict[str, str] = config["overwrite_map"]
        self.default_threshold: float = config["medium_confidence_threshold"]
        self.thresholds: dict[str, float] = config["thresholds"]
        self.types = json.loads((resources.files("magika") / "config" / "content_types_kb.min.json").read_bytes())

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads sleep
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])

    def prepare(self, data: bytes | bytearray | memoryview) -> Tokens | Verdict:
        """Tokens of shape (head + tail,), or the verdict where there is too little for the model to go by."""
        first = bytes(data[: self.block])
        if not first:
            return self.verdict("empty", 1.0)
        start = first.lstrip()[: self.head]
        if len(start) < self.shortest:
            return self.verdict(short_label(first), 1.0)
        end = bytes(data[-self.block :]).rstrip()[-self.tail :]
        tokens = np.full(self.head + self.tail, self.padding, np.int32)
        tokens[: len(start)] = np.frombuffer(start, np.uint8)
        tokens[len(tokens) - len(end) :] = np.frombuffer(end, np.uint8)
        return tokens

    def classify(self, batch: list[Tokens | Verdict]) -> list[Verdict]:
        """A verdict for each item, in order. All that need the model go through it together."""
        tokens = [item for item in batch if isinstance(item, np.ndarray)]
        if not tokens:
            return [item for item in batch if not isinstance(item, np.ndarray)]
        (scores,) = self.session.run(["target_label"], {"bytes": np.stack(tokens)})
        answers = iter(zip(scores.argmax(axis=1), scores.max(axis=1), strict=True))
        return [self.judge(*next(answers)) if isinstance(item, np.ndarray) else item for item in batch]

    def judge(self, index: int, score: np.float32) -> Verdict:
        """The model's best guess, or just "text" or "unknown" where its score is too low to be trusted."""
        guess = self.labels[index]
        label = self.renamed.get(guess, guess)
        if score < self.thresholds.get(guess, self.default_threshold):
            label = "txt" if self.types[label]["is_text"] else "unknown"
        return self.verdict(label, float(score))

    def verdict(self, label: str, score: float) -> Verdict:
        about = self.types[label]
        mime_type = about["mime_type"] or ("text/plain" if about["is_text"] else "application/octet-stream")
        return Verdict(
            label=label, mime_type=mime_type, description=about["description"] or label, score=round(score, 4)
        )


def short_label(data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError:
        return "unknown"
    return "txt"
