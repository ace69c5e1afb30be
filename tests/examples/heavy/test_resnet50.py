"""examples/resnet50: the real loading code, on a small model of the same architecture with random weights."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification

from tests.examples.heavy.conftest import Run
from tests.examples.heavy.pictures import encoded
from tests.examples.programs import client
from tests.service import Service

LABELS = ["cat", "dog", "boat", "tree", "cup", "lamp", "road"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet with bottleneck blocks as in the real one, but two stages and few channels."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 32],
        depths=[1, 2],
        layer_type="bottleneck",
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    folder = tmp_path_factory.mktemp("resnet")
    model = ResNetForImageClassification(config)
    torch.nn.init.normal_(model.classifier[1].weight, std=2.0)  # the untrained one is undecided
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def service(run_example: Run, folder: Path) -> Service:
    return run_example("resnet50", {"RESNET_MODEL": str(folder)})


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    """Scores by the library itself: its own preprocessing, one picture at a time."""
    model = ResNetForImageClassification.from_pretrained(folder).eval()
    prepare = ConvNextImageProcessorPil(
        size={"shortest_edge": 224},
        crop_pct=224 / 256,
        resample=Image.Resampling.BILINEAR,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )

    def scores(picture: bytes) -> dict[str, float]:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        with torch.inference_mode():
            found = model(**prepare(image, return_tensors="pt")).logits.softmax(dim=1)[0]
        return dict(zip(LABELS, found.tolist(), strict=True))

    return scores


def pictures() -> list[bytes]:
    """Smooth patterns of several sizes and shapes, also with a palette, grey, and with transparency."""
    found = []
    for number, (size, mode) in enumerate(
        [((300, 200), "RGB"), ((224, 224), "L"), ((90, 333), "RGBA"), ((640, 480), "P"), ((1, 1), "RGB")]
    ):
        source = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        found.append(encoded(Image.fromarray(source).resize(size, Image.Resampling.BICUBIC).convert(mode)))
    return found


def test_scores_are_those_of_the_model(service: Service, reference: Any) -> None:
    with service.client() as http:
        for picture in pictures():
            answer = http.post("/inference", content=picture).json()
            expected = sorted(reference(picture).items(), key=lambda item: -item[1])[:5]
            assert [guess["score"] for guess in answer] == pytest.approx([score for _, score in expected], abs=0.02)
            assert answer[0]["label"] == expected[0][0]


def test_each_of_many_gets_its_own(service: Service) -> None:
    alone: dict[bytes, str] = {}
    with service.client() as http, ThreadPoolExecutor(16) as pool:

        def ask(picture: bytes) -> list[dict[str, Any]]:
            answer: list[dict[str, Any]] = http.post("/inference", content=picture).json()
            return answer

        alone = {picture: ask(picture)[0]["label"] for picture in pictures()}
        many = list(alone) * 8
        assert [answer[0]["label"] for answer in pool.map(ask, many)] == [alone[picture] for picture in many]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"no picture", "send a picture, such as a PNG or JPEG file, as the body of the request"),
        (pictures()[0][:200], "the picture cannot be decoded: "),
    ],
)
def test_no_picture(service: Service, body: bytes, text: str) -> None:
    with service.client() as http:
        answer = http.post("/inference", content=body)
    assert answer.status_code == 422
    assert answer.text.startswith(f"request validation error: {text}")


def test_client_program(service: Service, reference: Any, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(pictures()[0])
    (line,) = client("resnet50", service, str(path), path="/inference")
    scores = reference(pictures()[0])
    assert line.startswith(f"picture.png: {max(scores, key=scores.__getitem__)} (")
