"""Pictures for the examples that look at some."""

import io

from PIL import Image, ImageDraw, ImageFont


def with_text(*lines: str, size: int = 40, width: int = 640, background: str = "white") -> Image.Image:
    """Lines of black text below each other; `size` of the letters and `width` of the picture in pixels."""
    picture = Image.new("RGB", (width, 2 * size * len(lines) + size), background)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((size, size // 2 + 2 * size * number), line, "black", ImageFont.load_default(size))
    return picture


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()
