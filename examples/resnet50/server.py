"""What is in a picture? ResNet-50, or any other image classifier of the Transformers library.

    RESNET_MODEL=microsoft/resnet-50 python examples/resnet50/server.py
    curl --data-binary @picture.jpg http://127.0.0.1:8000/inference

Pictures are decoded by processes of their own, so that the model's never waits for that.
"""

import io
import os
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from mosec_cy import Server, ValidationError, Worker

Pixels = npt.NDArray[np.float32]  # (3, 224, 224), normalised

MODEL = os.environ.get("RESNET_MODEL", "microsoft/resnet-50")  # a name on the Hugging Face Hub, or a folder
MAX_BATCH_SIZE = 16
SIDE, SHORTER = 224, 256  # px: what the model sees is the middle of a picture whose shorter side is scaled to 256
MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet's pictures, by channel
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
BLANK = np.zeros((3, SIDE, SIDE), np.float32)


class Guess(TypedDict):
    label: str
    score: float


class Preprocess(Worker):
    zero_copy = True  # the file is decoded from where it was received

    def deserialize(self, data: memoryview) -> Any:
        from PIL import Image, UnidentifiedImageError

        try:
            return Image.open(io.BytesIO(data)).convert("RGB")
        except UnidentifiedImageError as error:
            raise ValidationError("send a picture, such as a PNG or JPEG file, as the body of the request") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValidationError(f"the picture cannot be decoded: {error}") from error

    def forward(self, data: Any) -> Pixels:
        """The middle of the picture, as the model was trained on it."""
        from PIL import Image

        side = SIDE * min(data.size) / SHORTER
        left, top = (data.width - side) / 2, (data.height - side) / 2
        middle = data.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
        pixels = (np.asarray(middle, np.float32) / 255 - MEAN) / DEVIATION
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class Classify(Worker):
    multi_examples = [[BLANK], [BLANK] * MAX_BATCH_SIZE]

    def __init__(self) -> None:
        import torch  # here, so that only this stage loads it
        from transformers import AutoModelForImageClassification

        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModelForImageClassification.from_pretrained(MODEL).to(self.device).eval()
        self.labels = self.model.config.id2label

    def forward(self, data: list[Pixels]) -> list[list[Guess]]:
        """The five likeliest labels of each picture."""
        with self.torch.inference_mode():
            batch = self.torch.from_numpy(np.stack(data)).to(self.device)
            scores = self.model(batch).logits.softmax(dim=1)
            best = scores.topk(min(5, scores.shape[1]), dim=1)
        return [
            [Guess(label=self.labels[index], score=score) for index, score in zip(indices, values, strict=True)]
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


if __name__ == "__main__":
    server = Server(timeout=10_000)  # ms
    server.append_worker(Preprocess, num=2)
    server.append_worker(Classify, max_batch_size=MAX_BATCH_SIZE)
    server.run()
