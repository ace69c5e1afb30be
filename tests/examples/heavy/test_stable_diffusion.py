"""examples/stable_diffusion: the real loading code, on a small model of the same architecture with random weights."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.examples.heavy.conftest import Run
from tests.examples.programs import client
from tests.service import Service


def tokenizer(folder: Path) -> CLIPTokenizer:
    """One token for each letter of ASCII, at the end of a word and within it."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text encoder, U-Net with cross-attention and autoencoder, each as small as it can be."""
    torch.manual_seed(0)
    words = tokenizer(tmp_path_factory.mktemp("tokenizer"))
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=words,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("diffusion")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def service(run_example: Run, folder: Path) -> Service:
    return run_example("stable_diffusion", {"DIFFUSION_MODEL": str(folder), "DIFFUSION_STEPS": "3"})


def draw(service: Service, prompt: str, seed: int) -> np.ndarray:
    with service.client(timeout=120) as http:
        answer = http.post("/inference", json={"prompt": prompt, "seed": seed})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    return np.asarray(Image.open(io.BytesIO(answer.content)), np.int16)


def test_prompt_and_seed_decide(service: Service, folder: Path) -> None:
    first, again, other_seed, other_prompt = (
        draw(service, *asked) for asked in (("a lamp", 1), ("a lamp", 1), ("a lamp", 2), ("the sea at night", 1))
    )
    assert first.shape == (32, 32, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other_seed)
    assert not np.array_equal(first, other_prompt)

    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(1)
    (expected,) = pipeline("a lamp", generator=generator, num_inference_steps=3).images
    assert np.abs(first - np.asarray(expected, np.int16)).max() <= 2


def test_a_batch_draws_what_each_alone_would(service: Service) -> None:
    asked = [("a lamp", 1), ("the sea at night", 5), ("a tree", 9)]
    alone = [draw(service, *item) for item in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda item: draw(service, *item), asked))
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() <= 2  # sums in another order round differently


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{}", 422, "request validation error: the body is not what the annotation"),
        (b'{"prompt": ""}', 422, 'request validation error: the field "prompt" is not what'),
        (b'{"prompt": "x", "seed": -1}', 422, 'request validation error: the field "seed" is not what'),
        (b"a lamp", 400, "decoding error: the body is not JSON, at byte 0: "),
    ],
)
def test_refusals(service: Service, body: bytes, status: int, text: str) -> None:
    with service.client() as http:
        answer = http.post("/inference", content=body)
    assert answer.status_code == status and answer.text.startswith(text)


def test_client_program(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "lamp.png"
    lines = client("stable_diffusion", service, "--seed", "1", "a lamp", str(path), path="/inference")
    assert lines == [f"{path}: {path.stat().st_size} bytes"]
    assert np.array_equal(np.asarray(Image.open(path), np.int16), draw(service, "a lamp", 1))
