"""Images as a task's input: decoded, resized and cut in `prepare`, made into the model's numbers at batch time."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, PrivateAttr

from finespun.data import images
from finespun.tasks.base import Batch, Columns, Defaults, Problem, Role, Values
from finespun.tasks.inputs.augmentation import Augmentation
from finespun.tasks.inputs.image_encoder import ImageEncoder
from finespun.tasks.inputs.image_files import FILE, pixels_of, written_down

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from PIL import Image

PATCH = 16 * 16  # pixels that count as one token where the rows of a forward pass are chosen
SIZE = "size"  # beside the roles of a row that is encoded: width and height of its image
SMALL = 16  # side of the grey pictures that a simple method sees


class Part(NamedTuple):
    """What the model is given of an image: its pixels, or how they are made; `size` is (width, height) of the whole image."""

    pixels: bytes | None
    file: str | None
    size: tuple[int, int]


class ImageInput(Defaults):
    """Reads `image`, the path of a file; keeps uint8 pixels of the model's size."""

    processor: ClassVar[str] = "AutoImageProcessor"
    model_columns: ClassVar[tuple[str, ...]] = ("pixels", FILE)
    rows_at_once: ClassVar[int] = 256  # 38 MB of pixels at 224 x 224
    unit: ClassVar[str] = "patches_of_16x16"

    shown: ClassVar[tuple[str, ...]] = ("image",)
    simple: ClassVar[tuple[str, float]] = ("pixels", 1.0)
    input_roles: ClassVar[Mapping[str, Role]] = {"image": Role()}
    answer_roles: ClassVar[Mapping[str, Role]]

    image_size: PositiveInt | None
    max_megapixels: Annotated[float, Field(gt=0, le=178)]  # Pillow itself decodes no more
    augmentation: Augmentation

    _places: images.Places = PrivateAttr(images.Places((Path(),), (Path(),)))
    _contents: dict[str, str] = PrivateAttr(default_factory=dict)
    _keeps: bool = PrivateAttr(default=True)  # pixels, in prepared data

    @property
    def deterministic(self) -> bool:
        return not self.augmentation.on

    def reading_from(self, *folders: Path, inside: Sequence[Path] | None = None) -> Self:
        found = self.model_copy()
        found._places, found._contents = images.Places(folders, inside or folders), {}  # noqa: SLF001  (a copy of this very class)
        return found

    def files(self, values: Values) -> Iterator[Path]:
        return images.named_files([values.get(role) for role in ("image", "mask")], self._places)

    def kept_within(self, most_bytes: float, rows: int, encoder: ImageEncoder) -> tuple[Self, str | None]:
        """Leaves pixels in their files where those of so many rows would take more bytes."""
        size = rows * math.prod(encoder.size) * 3
        if size <= most_bytes:
            return self, None
        found = self.model_copy()
        found._keeps = False  # noqa: SLF001  (a copy of this very class)
        said = f"{size / 1e9:,.3g} GB of pixels are more than runtime.image_cache_gb: {most_bytes / 1e9:g}"
        return found, f"{said}; they are not kept, and files are decoded by workers while training"

    @property
    def _most(self) -> int:
        return int(self.max_megapixels * 1e6)

    def _read(self, name: str) -> images.Decoded:
        return images.read(name, self._places, max_pixels=self._most)

    def content(self, values: Values) -> str:
        """A digest of the decoded pixels before any resizing: other sizes of the model's move no row to another split."""
        name = values["image"]
        key = _key(name)
        if key not in self._contents:
            self._contents[key] = _digest(self._read(name).image)
        return self._contents[key]

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        """Yields what is wrong with a row; that only the first of an image's frames counts, where there is an answer."""
        yield from super().problems(values, labels)
        try:
            image, _, _, animated = self._read(values["image"])
        except images.UnreadableError as error:
            yield "bad_image", "image", str(error)
            return
        if any(role in values for role in self.answer_roles):  # rows that are kept: their content is asked for next
            self._contents[_key(values["image"])] = _digest(image)
            if animated:
                remedy = "has several frames, of which the first is used; set data.checks.animated_image: drop to do without it"
                yield "animated_image", "image", remedy

    def encoder(self, folder: Path) -> ImageEncoder:
        return ImageEncoder.read(folder, self.image_size)

    def encode(self, rows: Sequence[Values], encoder: ImageEncoder, labels: Sequence[str] | None) -> Columns:
        """Returns the paths and the pixels, (height, width, 3) bytes a row."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        height, width = encoder.size
        parts = [self._part(row, encoder) for row in rows]
        names = [name if not name.startswith(images.INLINE) else f"{name[:32]}..." for name in (row["image"] for row in rows)]
        kind = pa.binary(height * width * 3) if self._keeps else pa.binary()
        files = {} if self._keeps else {FILE: pa.array([part.file for part in parts], pa.string())}
        return (
            {
                "image": pa.array(names, pa.string()),
                "pixels": pa.array([part.pixels for part in parts], kind),
                "height": pa.array([height] * len(rows), pa.int32()),
                "length": pa.array([-(-height * width // PATCH)] * len(rows), pa.int32()),
                "truncated": pa.array([False] * len(rows), pa.bool_()),
            }
            | files
            | self._of_originals([part.size for part in parts])
            | super().encode([{**row, SIZE: part.size} for row, part in zip(rows, parts, strict=True)], encoder, labels)
        )

    def _part(self, row: Values, encoder: ImageEncoder) -> Part:
        """Reads what of an image the model is given."""
        name = row["image"]
        if self._keeps or name.startswith(images.INLINE):
            found = images.read(name, self._places, max_pixels=self._most, wanted=encoder.resized)
            return Part(encoder.pixels(*found[:3]).tobytes(), None, found.size)
        return Part(None, *written_down(name, self._places, encoder, max_pixels=self._most))

    def _of_originals(self, sizes: Sequence[tuple[int, int]]) -> Columns:
        """Returns columns of (width, height) before resizing, where the answer needs them."""
        return {}

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: ImageEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns `pixel_values`, (rows, 3, height, width), in memory with the channels last, as convolutions like it."""
        import torch  # noqa: PLC0415  (prepare encodes with this class and imports no torch)

        if FILE in columns:
            files = zip(columns["pixels"], columns[FILE], strict=True)
            pixels = np.stack([pixels_of({"pixels": kept, FILE: file, "height": encoder.size[0]}) for kept, file in files])
        else:
            pixels = np.frombuffer(b"".join(columns["pixels"]), np.uint8).reshape(-1, *encoder.size, 3)
        values = encoder.values(pixels, columns.get("filled", ()))
        inputs = {"pixel_values": torch.from_numpy(values).permute(0, 3, 1, 2)}
        return inputs, super().collate(columns, encoder)[1]

    def augment(self, batch: Batch, encoder: ImageEncoder, *, epoch: int, seed: int) -> Batch:
        import torch  # noqa: PLC0415

        if not self.augmentation.on:
            return batch
        given = batch.inputs["pixel_values"]
        mean, std = (torch.tensor(each, device=given.device)[:, None, None] for each in (encoder.mean, encoder.std))
        changed = self.augmentation.apply(given * std + mean, batch.rows, epoch=epoch, seed=seed)
        pixels = ((changed - mean) / std).contiguous(memory_format=torch.channels_last)
        return batch._replace(inputs=batch.inputs | {"pixel_values": pixels})

    def processor_options(self, encoder: ImageEncoder) -> dict[str, Any]:
        return dict(encoder.changes)

    def given(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The pixels as a PNG in text: an example that works where the files are not."""
        from PIL import Image  # noqa: PLC0415

        file = io.BytesIO()
        Image.fromarray(pixels_of(row)).save(file, "PNG")
        return {"image": f"{images.INLINE}png;base64,{base64.b64encode(file.getvalue()).decode()}"}

    def features(self, train: pa.Table, split: pa.Table) -> tuple[Any, Any]:
        return _grey(train), _grey(split)


def _grey(table: pa.Table) -> NDArray[np.float32]:
    """Returns small grey pictures, (rows, 256) from 0 to 1, never holding more than one large one."""
    from PIL import Image  # noqa: PLC0415

    found = np.empty((table.num_rows, SMALL * SMALL), dtype=np.float32)
    place = 0
    for batch in table.select([name for name in ("pixels", FILE, "height") if name in table.column_names]).to_batches():
        for row in range(batch.num_rows):
            data = pixels_of({name: batch[name][row].as_py() for name in batch.schema.names})
            small = Image.fromarray(data).convert("L").resize((SMALL, SMALL), Image.Resampling.BOX)
            found[place] = np.asarray(small, dtype=np.float32).ravel() / 255
            place += 1
    return found


def _key(name: str) -> str:
    """Short also for an image that is text."""
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _digest(image: Image.Image) -> str:
    return hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).hexdigest()
