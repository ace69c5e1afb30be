"""Text in pictures, by three stages at work at the same time: decode → detect → recognise.

    python examples/ocr/server.py
    curl --data-binary @picture.png http://127.0.0.1:8000/inference

Each stage is a process of its own (or several, or on a GPU: `num`, `env`), so one picture is decoded while another is
searched and a third is read. Pictures go from stage to stage as NumPy arrays in shared memory: they are written there
once, and the next stage looks at them where they lie.

The models are PP-OCRv4 as the package `rapidocr-onnxruntime` holds them.
"""

import itertools
import os
from typing import Any, TypedDict

import cv2
import numpy as np
import numpy.typing as npt

from mosec_cy import Server, ValidationError, Worker

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before a stage imports ONNX Runtime, which would report to its makers

Picture = npt.NDArray[np.uint8]  # (height, width, 3), BGR
Corners = npt.NDArray[np.float32]  # (4, 2): x and y in pixels; top left first, then clockwise

MAX_SIDE = 2000  # px; larger pictures are made smaller
MIN_SCORE = 0.5  # what is read with less confidence is left out
MAX_BATCH_SIZE = 8  # pictures whose lines are read together
CARD = np.full((64, 256, 3), 255, np.uint8)


class Lines(TypedDict):
    """Between detection and recognition."""

    crops: list[Picture]  # one for each line of text, turned upright
    corners: list[Corners]  # where it was, in pixels of the picture that was sent


class Line(TypedDict):
    text: str
    score: float
    corners: Corners


def model_config(part: str) -> dict[str, Any]:
    """What the package sets for "Det" or "Rec"; each model has a core of its own."""
    import rapidocr_onnxruntime.main as rapidocr

    config = rapidocr.update_model_path(rapidocr.read_yaml(rapidocr.DEFAULT_CFG_PATH))[part]
    return {**config, "intra_op_num_threads": 1, "inter_op_num_threads": 1}


class Decode(Worker):
    zero_copy = True  # the file is decoded from where it was received

    def deserialize(self, data: memoryview) -> Picture:
        try:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error as error:
            raise ValidationError(f"the picture cannot be decoded: {error}") from error
        if picture is None:
            raise ValidationError("send a picture, such as a PNG or JPEG file, as the body of the request")
        return np.asarray(picture, np.uint8)

    def forward(self, data: Picture) -> tuple[Picture, float]:
        """The picture, and by how much it has been made smaller."""
        scale = MAX_SIDE / max(data.shape[:2])
        if scale >= 1:
            return data, 1.0
        return np.asarray(cv2.resize(data, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8), scale


class Detect(Worker):
    example = (CARD, 1.0)

    def __init__(self) -> None:
        from rapidocr_onnxruntime.ch_ppocr_det import TextDetector

        self.detect = TextDetector(model_config("Det"))

    def forward(self, data: tuple[Picture, float]) -> Lines:
        picture, scale = data
        found, _ = self.detect(picture)
        corners = sorted(found, key=lambda corners: (corners[0][1], corners[0][0]))  # from top to bottom
        return {
            "crops": [crop(picture, corner) for corner in corners],
            "corners": [corner / np.float32(scale) for corner in corners],
        }


class Recognise(Worker):
    multi_examples = [
        [{"crops": [CARD], "corners": [np.zeros((4, 2), np.float32)]}],
        [{"crops": [], "corners": []}],
    ]

    def __init__(self) -> None:
        from rapidocr_onnxruntime.ch_ppocr_rec import TextRecognizer

        self.recognise = TextRecognizer(model_config("Rec"))

    def forward(self, data: list[Lines]) -> list[list[Line]]:
        crops = [crop for lines in data for crop in lines["crops"]]
        # Lines of all pictures together: the recogniser sorts them by length and runs those of like length at once.
        read = iter(self.recognise(crops)[0] if crops else [])
        return [readable(lines["corners"], list(itertools.islice(read, len(lines["crops"])))) for lines in data]


def readable(corners: list[Corners], read: list[tuple[str, float]]) -> list[Line]:
    """What was read with confidence."""
    lines = [
        Line(text=text, score=float(score), corners=corner) for corner, (text, score) in zip(corners, read, strict=True)
    ]
    return [line for line in lines if line["score"] >= MIN_SCORE]


def crop(picture: Picture, corners: Corners) -> Picture:
    """The part of the picture between four corners, made a rectangle; a column is turned to a line."""
    width = max(1, round(max(np.linalg.norm(corners[0] - corners[1]), np.linalg.norm(corners[3] - corners[2]))))
    height = max(1, round(max(np.linalg.norm(corners[0] - corners[3]), np.linalg.norm(corners[1] - corners[2]))))
    rectangle = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    transform = cv2.getPerspectiveTransform(corners, rectangle)
    line = cv2.warpPerspective(
        picture, transform, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    if height >= 1.5 * width:
        line = np.rot90(line)
    return np.ascontiguousarray(line, np.uint8)  # only contiguous arrays are passed on without a copy


if __name__ == "__main__":
    server = Server(timeout=30_000)  # ms
    # A small file may hold a picture that fills the memory: OpenCV refuses more pixels than this.
    server.append_worker(Decode, env=[{"OPENCV_IO_MAX_IMAGE_PIXELS": "100000000"}])
    server.append_worker(Detect)  # pictures differ in size, so each is searched by itself
    server.append_worker(Recognise, max_batch_size=MAX_BATCH_SIZE)
    server.run()
