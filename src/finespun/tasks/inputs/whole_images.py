"""Images as an input whose answer says where things are: the whole image, stretched to the model's size, nothing cut off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import PrivateAttr

from finespun.tasks.base import Columns
from finespun.tasks.inputs.image_encoder import ImageEncoder
from finespun.tasks.inputs.images import ImageInput

if TYPE_CHECKING:
    from PIL import Image

ORIGINAL = ("original_width", "original_height")  # columns of prepared data: what answers are given in


class WholeImages(ImageInput):
    """Reads `image`; places in it are shares of its sides, so that any size can be answered in its own pixels."""

    rows_at_once: ClassVar[int] = 64

    _last: dict[str, tuple[Image.Image, bool]] = PrivateAttr(default_factory=dict)

    def _read(self, name: str) -> tuple[Image.Image, bool]:
        """Keeps the last image: a row's checks ask for it several times."""
        if name not in self._last:
            found = super()._read(name)
            self._last.clear()
            self._last[name] = found
        return self._last[name]

    def encoder(self, folder: Path) -> ImageEncoder:
        """Returns the checkpoint's processor without cropping, to a size of its own or to `image_size` squared."""
        return ImageEncoder.read(folder, self.image_size, whole=True)

    def _of_originals(self, sizes: Sequence[tuple[int, int]]) -> Columns:
        import pyarrow as pa  # noqa: PLC0415

        return {name: pa.array([size[side] for size in sizes], pa.int32()) for side, name in enumerate(ORIGINAL)}
