"""Image files become upright RGB pixels, or a reason why not. Imports no torch."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finespun.data.image_folder import ENDINGS
from finespun.errors import listed

if TYPE_CHECKING:
    from PIL import Image

INLINE = "data:image/"  # an image as text: data:image/png;base64,...
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no others: some start programs
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose whole numbers of mode `I` are those of 16 bits


class UnreadableError(Exception):
    """An image that cannot be used; the message says why and what to do, after the file's name."""


def locate(name: str, folders: Sequence[Path]) -> Path:
    """Returns where a file lies: at its own path, or relative to the first folder that has it.

    Raises:
        UnreadableError: nowhere, or it is a folder.
    """
    if not name.strip():
        raise UnreadableError("is empty; write the path of an image")
    places = [folder / Path(name).expanduser() for folder in folders]
    path = next((place for place in places if place.is_file()), None)
    if path is not None:
        return path
    if any(place.is_symlink() for place in places):
        raise UnreadableError("is a link that leads nowhere; restore what it leads to, or remove it")
    if any(place.is_dir() for place in places):
        raise UnreadableError("is a folder; name one image, or set data.path to the folder itself")
    raise UnreadableError(f"is not there (looked in {', '.join(map(str, folders))}); put it there, or correct the path")


def read(name: str, folders: Sequence[Path], *, max_pixels: int) -> tuple[Image.Image, bool]:
    """Returns an image as upright RGB, transparency over white, and whether it is the first frame of several.

    Args:
        name: a path, or `data:image/...;base64,` and the bytes of a file.
        folders: that a relative path may be relative to.
        max_pixels: more are not decoded: 10 kB can become gigabytes.

    Raises:
        UnreadableError: the file is not there, is no image, is damaged or too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415  (configure checks tasks and decodes nothing)

    data = _bytes(name, folders)
    if not data:
        raise UnreadableError("is empty (0 bytes); fetch it again, or set data.checks.bad_image: drop")
    Image.init()  # finds out which formats this build of Pillow knows; the first time only
    known = [each for each in FORMATS if each in Image.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's: of odd metadata, and of sizes that are checked here
        try:
            with Image.open(io.BytesIO(data), formats=known) as image:
                _require_size(image, max_pixels)
                animated = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
                image.load()
                return _rgb(ImageOps.exif_transpose(image), str(image.format)), animated
        except UnreadableError:
            raise
        except UnidentifiedImageError as error:
            raise UnreadableError(f"is no image of a known kind ({listed(ENDINGS)}); {_REMEDY}") from error
        except Image.DecompressionBombError as error:
            raise UnreadableError(f"is too large to be decoded safely ({error}); make it smaller") from error
        except Exception as error:  # decoders raise what they like: OSError, SyntaxError, struct.error, ...
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreadableError(f"is damaged ({reason}); fetch it again, or set data.checks.bad_image: drop") from error


def _require_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UnreadableError(
            f"is {image.width} x {image.height} pixels, more than {max_pixels / 1e6:g} million; make it smaller, or raise"
            " task.max_megapixels if you trust it"
        )


_REMEDY = "remove it, or set data.checks.bad_image: drop"


def _bytes(name: str, folders: Sequence[Path]) -> bytes:
    if not name.startswith(INLINE):
        path = locate(name, folders)
        try:
            return path.read_bytes()
        except OSError as error:
            raise UnreadableError(f"cannot be read ({error.strerror}); correct its permissions") from error
    try:
        return base64.b64decode(name.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise UnreadableError(f"is not base64 ({error}); write data:image/png;base64, and the file's bytes") from error


def _rgb(image: Image.Image, kind: str) -> Image.Image:
    from PIL import Image  # noqa: PLC0415

    if image.mode.startswith("I;16") or (image.mode == "I" and kind in SIXTEEN_BITS):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))  # Pillow itself would cut at 255
    elif image.mode in {"I", "F"}:
        raise UnreadableError(f"holds numbers of mode {image.mode}, which have no agreed white; save it with 8 or 16 bits")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
