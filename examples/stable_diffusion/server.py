"""Pictures from text: Stable Diffusion by the Diffusers library. The answer is a PNG file.

    DIFFUSION_MODEL=stable-diffusion-v1-5/stable-diffusion-v1-5 python examples/stable_diffusion/server.py
    curl -d '{"prompt": "a lighthouse at dawn"}' http://127.0.0.1:8000/inference -o lighthouse.png

Prompts that arrive within a second are drawn together.
"""

import io
import os
from typing import Annotated, Any

import msgspec

from mosec_cy import Server, Worker
from mosec_cy.mixin import TypedJSONMixin

MODEL = os.environ.get("DIFFUSION_MODEL", "stable-diffusion-v1-5/stable-diffusion-v1-5")  # on the Hub, or a folder
STEPS = int(os.environ.get("DIFFUSION_STEPS", "25"))  # more are better and slower
MAX_BATCH_SIZE = 4


class Request(msgspec.Struct):
    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    negative_prompt: Annotated[str, msgspec.Meta(max_length=1000)] = ""  # what the picture should not show
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0  # the same prompt and seed: the same picture


class TextToImage(TypedJSONMixin, Worker):
    resp_mime_type = "image/png"
    example = [Request("a lighthouse")]

    def __init__(self) -> None:
        import torch  # here, so that only workers load it
        from diffusers import StableDiffusionPipeline

        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.float16 if self.device == "cuda" else torch.float32
        self.pipeline = StableDiffusionPipeline.from_pretrained(MODEL).to(self.device, dtype)
        self.pipeline.set_progress_bar_config(disable=True)

    def forward(self, data: list[Request]) -> list[Any]:
        # A generator for each picture, on the CPU: who else is in the batch makes no difference to it.
        generators = [self.torch.Generator("cpu").manual_seed(request.seed) for request in data]
        drawn = self.pipeline(
            prompt=[request.prompt for request in data],
            negative_prompt=[request.negative_prompt for request in data],
            generator=generators,
            num_inference_steps=STEPS,
        )
        return list(drawn.images)

    def serialize(self, data: Any) -> memoryview:
        out = io.BytesIO()
        data.save(out, "PNG")
        return out.getbuffer()


if __name__ == "__main__":
    server = Server(timeout=300_000)  # ms; on a CPU a picture takes minutes
    # Pictures take minutes and come seldom, too seldom to learn from: a second for others counts for nothing.
    server.append_worker(TextToImage, max_batch_size=MAX_BATCH_SIZE, max_wait_time=1000)
    server.run()
