"""Images as an input whose answer says where things are: nothing is cut off, and each part is stretched to the model's size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr

from finespun.data import images
from finespun.tasks.base import Columns, Values
from finespun.tasks.inputs.image_encoder import ImageEncoder
from finespun.tasks.inputs.images import ImageInput
from finespun.tasks.inputs.tiles import Tile, tiles_of

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

TILE = "tile"  # beside the roles of a row: the part of its image that is meant
ORIGINAL = ("original_width", "original_height")  # columns of prepared data: what answers are given in


class WholeImages(ImageInput):
    """Reads `image`; places in it are shares of its sides, so that any size can be answered in its own pixels."""

    rows_at_once: ClassVar[int] = 64

    tile: Annotated[int, Field(ge=16)] | None  # pixels a side of the parts that a larger image is cut into

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

    def encode(self, rows: Sequence[Values], encoder: ImageEncoder, labels: Sequence[str] | None) -> Columns:
        """Returns columns of the images, or of their tiles, each of which is a row of its own."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        if self.tile is None:
            return super().encode(rows, encoder, labels)
        parts = [(place, tile) for place, row in enumerate(rows) for tile in tiles_of(self._known_size(row), self.tile)]
        columns = super().encode([{**rows[place], TILE: tile} for place, tile in parts], encoder, labels)
        return columns | {"source": pa.array([place for place, _ in parts], pa.int64())}

    def _part(self, row: Values) -> tuple[Image.Image, tuple[int, int]]:
        image, size = super()._part(row)
        return (image.crop(row[TILE]) if TILE in row else image), size

    def _size_of(self, values: Values) -> tuple[int, int] | None:
        try:
            return self._read(values["image"])[0].size
        except images.UnreadableError:
            return None  # reported of the image

    def _known_size(self, values: Values) -> tuple[int, int]:
        size = self._size_of(values)
        assert size is not None, "checked before"
        return size

    def _by_image(self, rows: pa.Table, outputs: Sequence[Any]) -> Iterator[tuple[int, list[Tile], Sequence[Any]]]:
        """Yields the first row of each image, its tiles and their outputs."""
        place = 0
        sizes = [rows[name].to_pylist() for name in ORIGINAL]
        while place < rows.num_rows:
            size = sizes[0][place], sizes[1][place]
            tiles = tiles_of(size, self.tile) if self.tile else [Tile(0, 0, *size)]
            yield place, tiles, outputs[place : place + len(tiles)]
            place += len(tiles)

    def _of_originals(self, sizes: Sequence[tuple[int, int]]) -> Columns:
        import pyarrow as pa  # noqa: PLC0415

        return {name: pa.array([size[side] for size in sizes], pa.int32()) for side, name in enumerate(ORIGINAL)}
