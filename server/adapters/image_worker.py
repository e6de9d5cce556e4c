"""A program of its own that decodes images: ``python -m server.adapters.image_worker``.

An image is somebody's input to a hundred thousand lines of C. Here it can crash, loop or eat memory without the server:
the server feeds this program over its standard input, stops it when it takes too long, and starts another.

In: a line of JSON ``{"format", "bytes", "pixels_max", "side"}``, then that many bytes. Out: a line of JSON, ``{}`` for
what is no whole image of that format, or ``{"width", "height", "type", "bytes"}`` and the thumbnail. And so on, until
the input ends.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from typing import Any, BinaryIO

from PIL import Image, ImageOps

# Decoding the largest image that is taken (50 million pixels in four bytes each), its copy, and the program itself.
MEMORY_BYTES_MAX = 1024 * 1024 * 1024
JPEG_QUALITY = 80


def main() -> None:
    """Serve until the input ends."""
    _limit_memory()
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # ours is checked below, before anything is decoded
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline():
        answer, thumbnail = _answer(json.loads(line), source)
        sink.write(json.dumps(answer).encode() + b"\n" + thumbnail)
        sink.flush()


def _answer(ask: dict[str, Any], source: BinaryIO) -> tuple[dict[str, Any], bytes]:
    data = source.read(ask["bytes"])
    try:
        return examine(data, image_format=ask["format"], pixels_max=ask["pixels_max"], side=ask["side"])
    except (Exception, MemoryError):  # whatever a decoder says of a broken file, it is a broken file
        return {}, b""


def examine(data: bytes, *, image_format: str, pixels_max: int, side: int) -> tuple[dict[str, Any], bytes]:
    """What is said of one image, and its thumbnail of at most ``side`` pixels a side. Raises what decoders raise."""
    with Image.open(io.BytesIO(data), formats=[image_format]) as image:
        if image.width * image.height > pixels_max:
            return {}, b""
        turned = (
            image.getexif().get(0x0112, 1) >= 5
        )  # a quarter turn: sides change places (EXIF, Orientation)
        width, height = (image.height, image.width) if turned else image.size
        image.thumbnail((side, side))  # decodes all of it; a JPEG at a fraction of its size
        small = ImageOps.exif_transpose(image)
    media_type, thumbnail = _saved(small)
    return {"width": width, "height": height, "type": media_type, "bytes": len(thumbnail)}, thumbnail


def _saved(image: Image.Image) -> tuple[str, bytes]:
    """The pixels and nothing else: a new image has no EXIF, comments or profiles to write."""
    clear = image.has_transparency_data
    mode = "RGBA" if clear else "RGB"
    bare = Image.new(mode, image.size)
    bare.paste(image.convert(mode))
    sink = io.BytesIO()
    if clear:
        bare.save(sink, "WEBP", quality=JPEG_QUALITY)
    else:
        bare.save(sink, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "image/webp" if clear else "image/jpeg", sink.getvalue()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))


if __name__ == "__main__":
    main()
