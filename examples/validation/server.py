"""Requests that are checked before `forward` sees them: the mean colour of an image of raw RGB bytes.

    python examples/validation/server.py
    python examples/validation/client.py

`/msgpack` takes MessagePack, where the pixels travel as they are and are looked at where they arrived; `/json` takes
JSON, with the pixels in base64. What does not fit `Image` is answered 422, with the path of the field.
"""

from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from mosec_cy import Server, ValidationError, Worker
from mosec_cy.mixin import TypedJSONMixin, TypedMsgPackMixin

Length = Annotated[int, Meta(ge=1, le=8192)]


class Image(Struct, forbid_unknown_fields=True):
    width: Length
    height: Length
    pixels: memoryview  # rows of red, green, blue; a byte each


class Colour(Struct):
    red: float
    green: float
    blue: float


def mean_colour(image: Image) -> Colour:
    shape = (image.height, image.width, 3)
    if image.pixels.nbytes != np.prod(shape):  # what types cannot say is checked by hand, and answered alike
        raise ValidationError(f"{image.pixels.nbytes} bytes are not {shape} - at `$.pixels`")
    pixels = np.frombuffer(image.pixels, np.uint8).reshape(shape)
    return Colour(*pixels.mean(axis=(0, 1)).tolist())


class Packed(TypedMsgPackMixin, Worker):
    def forward(self, data: Image) -> Colour:
        return mean_colour(data)


class InBatches(TypedJSONMixin, Worker):
    def forward(self, data: list[Image]) -> list[Colour | Exception]:
        return [self.one(image) for image in data]

    def one(self, image: Image) -> Colour | Exception:
        try:
            return mean_colour(image)
        except ValidationError as error:
            return error  # in its item's place: the others of the batch are answered


if __name__ == "__main__":
    server = Server()
    server.append_worker(Packed, route="/msgpack")
    server.append_worker(InBatches, max_batch_size=8, route="/json")
    server.run()
