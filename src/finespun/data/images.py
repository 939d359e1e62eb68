"""Image files become upright RGB pixels, or a reason why not. Imports no torch."""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finespun.data.sources.image_folder import ENDINGS
from finespun.errors import listed
from finespun.masking import one_line

if TYPE_CHECKING:
    from PIL import Image

INLINE = "data:image/"  # an image as text: data:image/png;base64,...
BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0A")  # of JPEG, PNG, GIF, WebP, BMP, TIFF
SHORTEST = 256  # characters of an image as base64; a path that begins so is shorter
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no others: some start programs
BYTES_A_PIXEL = 8  # of the largest files: four channels of 16 bits, not compressed
METADATA = 64_000_000  # bytes that a file may have beside its pixels
MASK_MODES = ("P", "L", "1", "I;16", "I;16B", "I")  # of PNG: what has one value a pixel
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose whole numbers of mode `I` are those of 16 bits
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # Exif's tag, and its values by which width and height change places
FROM_RIGHT, FROM_BELOW = (2, 3, 6, 7), (3, 4, 7, 8)  # by which the first pixels become the last
DRAFT = 1.25  # times the wanted size that a JPEG is decoded to at least (docs/decisions/0055-images-beyond-the-cache.md)

Wanted = Callable[[tuple[int, int]], tuple[int, int]]


class UnreadableError(Exception):
    """An image that cannot be used; the message says why and what to do, after the file's name."""


@dataclass(frozen=True)
class Places:
    """Where image files are looked for and may lie.

    `folders` are those that a relative path may be relative to; only files inside one of `inside` are read, wherever a path
    or a link leads.
    """

    folders: Sequence[Path]
    inside: Sequence[Path]

    def allow(self, path: Path) -> bool:
        """Whether a file may be read, after all links."""
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(folder) for folder in self._real)

    @cached_property
    def _real(self) -> list[str]:
        return [os.path.realpath(folder) for folder in self.inside]


def locate(name: str, places: Places, *, what: str = "image") -> Path:
    """Returns where a file lies: at its own path, or relative to the first folder that has it.

    Raises:
        UnreadableError: nowhere, outside the folders that may be read, or it is no file.
    """
    if not name.strip():
        raise UnreadableError(f"is empty; write the path of an {what}")
    try:
        found = [folder / Path(name).expanduser() for folder in places.folders]
        inside = [path for path in found if places.allow(path)]
        path = next((path for path in inside if path.is_file()), None)
        if path is not None:
            return path
        if not inside or any(path.is_file() for path in found):
            raise UnreadableError(
                f"lies outside {_named(places.inside)}, and data.allow_outside (predict --allow-outside) is not set; copy it"
                " there, or set that if you trust the table"
            )
        raise UnreadableError(_no_file(inside, places.folders, what))
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, an unknown user, no permission
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UnreadableError(f"is no path that can be opened ({reason}); correct it") from error


def named_files(names: Iterable[Any], places: Places) -> Iterator[Path]:
    """Yields the files that cells of a row name; why others name none, the checks say."""
    for name in names:
        if isinstance(name, str) and not name.startswith(INLINE):
            with suppress(UnreadableError):
                yield locate(name, places)


def _no_file(places: Sequence[Path], folders: Sequence[Path], what: str) -> str:
    if any(place.is_symlink() and not place.exists() for place in places):
        return "is a link that leads nowhere; restore what it leads to, or remove it"
    if any(place.is_dir() for place in places):
        return f"is a folder; name one {what}, or set data.path to the folder itself"
    if any(place.exists() for place in places):
        return "is a device or a pipe, not a file; name a file, or remove the row"
    return f"is not there (looked in {_named(folders)}); put it there, or correct the path"


def _named(folders: Sequence[Path]) -> str:
    return ", ".join(dict.fromkeys(map(str, folders)))


class Decoded(NamedTuple):
    """An image as upright RGB, transparency over white.

    `size` is (width, height) of the whole: of a large JPEG, `image` may be the half, a quarter or an eighth of it, and `box`
    (left, top, right, bottom) is what of `image` that is, whose sides are rounded up. `animated`: it is the first of several.
    """

    image: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    animated: bool


def read(name: str, places: Places, *, max_pixels: int, wanted: Wanted | None = None) -> Decoded:
    """Decodes an image.

    Args:
        name: a path, or `data:image/...;base64,` and the bytes of a file.
        places: where files are looked for and may lie.
        max_pixels: more are not decoded: 10 kB can become gigabytes.
        wanted: to which (width, height) an image of a size will be made smaller; a JPEG is decoded to DRAFT times that at
            least, which its blocks of 8 x 8 frequencies give for less work (Pillow's `draft`).

    Raises:
        UnreadableError: the file is not there, is no image, is damaged or too large.
    """
    return decode(file_bytes(name, places, max_pixels=max_pixels), max_pixels=max_pixels, wanted=wanted)


def file_bytes(name: str, places: Places, *, max_pixels: int) -> bytes:
    """Returns the bytes of an image's file.

    Raises:
        UnreadableError: it is not there, cannot be read or is too large.
    """
    return _bytes(name, places, most=METADATA + BYTES_A_PIXEL * max_pixels)


def decode(data: bytes, *, max_pixels: int, wanted: Wanted | None = None) -> Decoded:
    """Decodes the bytes of an image's file; as `read`."""
    from PIL import ImageOps  # noqa: PLC0415  (configure checks tasks and decodes nothing)

    with _opened(data, max_pixels) as image:
        animated = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
        orientation, size = image.getexif().get(ORIENTATION), _upright(image)
        drafted = None
        if wanted is not None:
            least = wanted(size)[:: -1 if orientation in TURNED else 1]
            drafted = image.draft(image.mode, (math.ceil(DRAFT * least[0]), math.ceil(DRAFT * least[1])))
        image.load()
        _, _, width, height = drafted[1] if drafted else (0, 0, *image.size)
        width, height = (height, width) if orientation in TURNED else (width, height)
        ImageOps.exif_transpose(image, in_place=True)  # a copy of a large image is a lot
        left = image.width - width if orientation in FROM_RIGHT else 0
        top = image.height - height if orientation in FROM_BELOW else 0
        return Decoded(_rgb(image, str(image.format)), size, (left, top, left + width, top + height), animated)


def size_of(data: bytes, *, max_pixels: int) -> tuple[int, int]:
    """Returns (width, height) of the upright image that a file's bytes begin to describe, which is not decoded; as `read`."""
    with _opened(data, max_pixels) as image:
        return _upright(image)


def _upright(image: Image.Image) -> tuple[int, int]:
    turned = image.getexif().get(ORIENTATION) in TURNED
    return (image.height, image.width) if turned else image.size


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Opens an image that is no larger than it may be; what a decoder raises in the body becomes an UnreadableError."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    if not data:
        raise UnreadableError("is empty (0 bytes); fetch it again, or set data.checks.bad_image: drop")
    Image.init()  # finds out which formats this build of Pillow knows; the first time only
    known = [each for each in FORMATS if each in Image.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's: of odd metadata, and of sizes that are checked here
        try:
            with Image.open(io.BytesIO(data), formats=known) as image:
                _require_size(image, max_pixels)
                yield image
        except (UnreadableError, MemoryError):
            raise
        except UnidentifiedImageError as error:
            raise UnreadableError(f"is no image of a known kind ({listed(ENDINGS)}); {_REMEDY}") from error
        except Image.DecompressionBombError as error:
            raise UnreadableError(f"is too large to be decoded safely ({error}); make it smaller") from error
        except Exception as error:  # decoders raise what they like: OSError, SyntaxError, struct.error, ...
            reason = one_line(error, None)
            raise UnreadableError(f"is damaged ({reason}); fetch it again, or set data.checks.bad_image: drop") from error


def _require_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UnreadableError(
            f"is {image.width} x {image.height} pixels, more than {max_pixels / 1e6:g} million; make it smaller, or raise"
            " task.max_megapixels if you trust it"
        )


def read_mask(name: str, places: Places, *, max_pixels: int) -> NDArray[np.uint16]:
    """Returns the value of each pixel, (height, width): places in a palette, or greys.

    Args:
        name: a path, or `data:image/png;base64,` and the bytes of a file.
        places: where files are looked for and may lie.
        max_pixels: more are not decoded.

    Raises:
        UnreadableError: the file is not there, is no PNG, is damaged or too large, or has colours and not values.
    """
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    data = file_bytes(name, places, max_pixels=max_pixels)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            _require_size(image, max_pixels)
            _require_values(image)
            return np.asarray(image).astype(np.uint16)
    except (UnreadableError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError("is no PNG, and other kinds change values of pixels; save the mask as PNG") from error
    except Exception as error:  # as for images
        raise UnreadableError(f"is damaged ({one_line(error, None)}); save it again") from error


def _require_values(image: Image.Image) -> None:
    if image.mode not in MASK_MODES:
        raise UnreadableError(
            f"has pixels of mode {image.mode}, and a mask has one value a pixel; save it with a palette or as greys of 8 or 16"
            " bits"
        )


def inline(given: Any) -> Any:
    """Returns the bytes of an image file, or their base64 alone, as an image in text; what is neither, as it is."""
    if isinstance(given, bytes | bytearray | memoryview):
        return f"{INLINE}any;base64,{base64.b64encode(given).decode()}"
    plain = isinstance(given, str) and given.startswith(BASE64) and len(given) > SHORTEST
    return f"{INLINE}any;base64,{given}" if plain else given


_REMEDY = "convert it to PNG or JPEG, remove it, or set data.checks.bad_image: drop"


def _bytes(name: str, places: Places, *, most: int) -> bytes:
    if not name.startswith(INLINE):
        path = locate(name, places)
        try:
            with path.open("rb") as file:
                data = file.read(most + 1)  # some files have no size and no end
        except OSError as error:
            raise UnreadableError(f"cannot be read ({error.strerror}); correct its permissions") from error
        if len(data) > most:
            raise UnreadableError(
                f"has more than {most / 1e6:,.0f} MB, as no image of task.max_megapixels needs; make it smaller"
            )
        return data
    try:
        return base64.b64decode(name.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise UnreadableError(f"is not base64 ({error}); write data:image/png;base64, and the file's bytes") from error


def _rgb(image: Image.Image, kind: str) -> Image.Image:
    from PIL import Image  # noqa: PLC0415

    if image.mode.startswith("I;16") or (image.mode == "I" and kind in SIXTEEN_BITS):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # Pillow itself would cut at 255
    elif image.mode in {"I", "F"}:
        raise UnreadableError(f"holds numbers of mode {image.mode}, which have no agreed white; save it with 8 or 16 bits")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
