"""Images as an input whose answer says where things are: nothing is cut off, and places are found again in the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from finespun.data import images
from finespun.tasks.base import Columns, Values
from finespun.tasks.inputs.image_encoder import ImageEncoder
from finespun.tasks.inputs.image_files import FILE
from finespun.tasks.inputs.images import SIZE, ImageInput, Part
from finespun.tasks.inputs.tiles import Tile, tiles_of

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

TILE = "tile"  # beside the roles of a row: the part of its image that is meant
FILLED = "filled"  # column: height and width of what a row fills of the model's size, where the rest is padding
LONGEST = 8  # times its shorter side: of a longer image, squares of the shorter side would be too many
ORIGINAL = ("original_width", "original_height")  # columns of prepared data: what answers are given in


class WholeImages(ImageInput):
    """Reads `image`; places in it are shares of its sides, so that any size can be answered in its own pixels."""

    model_columns: ClassVar[tuple[str, ...]] = ("pixels", FILE, FILLED)
    rows_at_once: ClassVar[int] = 64

    resize: Literal["stretch", "letterbox", "shortest_edge"]
    tile: Annotated[int, Field(ge=16)] | None  # pixels a side of the parts that a larger image is cut into

    _last: dict[str, images.Decoded] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _cuts_once(self) -> Self:
        if self.tile and self.resize == "shortest_edge":
            raise ValueError("resize: shortest_edge cuts images into squares itself; set tile: null, or resize: letterbox")
        return self

    @property
    def cut(self) -> bool:
        """Whether rows are parts of images."""
        return self.tile is not None or self.resize == "shortest_edge"

    def _tiles(self, size: tuple[int, int]) -> list[Tile]:
        """Returns the parts of an image of (width, height)."""
        if self.resize == "shortest_edge":
            return tiles_of(size, max(min(size), max(size) // LONGEST))
        return tiles_of(size, self.tile or max(size))

    def kept_within(self, most_bytes: float, rows: int, encoder: ImageEncoder) -> tuple[Self, str | None]:
        """As for other images; tiles are always kept, for each would be decoded with all of its image."""
        return (self, None) if self.cut else super().kept_within(most_bytes, rows, encoder)

    def _read(self, name: str) -> images.Decoded:
        """Keeps the last image: a row's checks ask for it several times, and all its tiles."""
        if name not in self._last:
            found = super()._read(name)
            self._last.clear()
            self._last[name] = found
        return self._last[name]

    def encoder(self, folder: Path) -> ImageEncoder:
        """Returns the checkpoint's processor without cropping, to a size of its own or to `image_size` squared."""
        return ImageEncoder.read(folder, self.image_size, whole=True, letterbox=self.resize == "letterbox")

    def encode(self, rows: Sequence[Values], encoder: ImageEncoder, labels: Sequence[str] | None) -> Columns:
        """Returns columns of the images, or of their tiles, each of which is a row of its own."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        if not self.cut:
            columns = super().encode(rows, encoder, labels)
            sizes = list(zip(*(columns[name].to_pylist() for name in ORIGINAL), strict=True))
        else:
            parts = [(place, tile) for place, row in enumerate(rows) for tile in self._tiles(self._known_size(row))]
            columns = super().encode([{**rows[place], TILE: tile} for place, tile in parts], encoder, labels)
            columns = {**columns, "source": pa.array([place for place, _ in parts], pa.int64())}
            sizes = [tile.size for _, tile in parts]
        if not encoder.letterbox:
            return columns
        return {**columns, FILLED: pa.array([encoder.filled(size) for size in sizes], pa.list_(pa.int32()))}

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: ImageEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns `pixel_values` and, where images are padded, `pixel_mask`, (rows, height, width): 1 inside, 0 outside."""
        import torch  # noqa: PLC0415  (prepare encodes with this class and imports no torch)

        inputs, targets = super().collate(columns, encoder)
        if FILLED in columns:
            mask = torch.zeros((len(inputs["pixel_values"]), *encoder.size), dtype=torch.int64)
            for row, (height, width) in enumerate(columns[FILLED]):
                mask[row, :height, :width] = 1
            inputs["pixel_mask"] = mask
        return inputs, targets

    def _part(self, row: Values, encoder: ImageEncoder) -> Part:
        if TILE not in row:
            return super()._part(row, encoder)
        found = self._read(row["image"])
        return Part(encoder.pixels(found.image.crop(row[TILE])).tobytes(), None, found.size)

    def _size_of(self, values: Values) -> tuple[int, int] | None:
        name = values["image"]
        if SIZE in values or name in self._last:
            return values[SIZE] if SIZE in values else self._last[name].size
        try:
            return images.size_of(images.file_bytes(name, self._places, max_pixels=self._most), max_pixels=self._most)
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
            tiles = self._tiles(size)
            yield place, tiles, outputs[place : place + len(tiles)]
            place += len(tiles)

    @staticmethod
    def _filled(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Returns (rows, 2), height and width of what images fill of their tensors; None where that is all."""
        import torch  # noqa: PLC0415

        mask = inputs.get("pixel_mask")
        return None if mask is None else torch.stack([mask[:, :, 0].sum(1), mask[:, 0].sum(1)], 1)

    def _of_originals(self, sizes: Sequence[tuple[int, int]]) -> Columns:
        import pyarrow as pa  # noqa: PLC0415

        return {name: pa.array([size[side] for size in sizes], pa.int32()) for side, name in enumerate(ORIGINAL)}
