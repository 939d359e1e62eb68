"""A class for each pixel as a task's answer: masks as PNG, and the numbers of pixels that each image adds to the scores."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PrivateAttr, field_validator

from finespun.data import images
from finespun.data.sources.annotations.regions import Mask, RegionError, bounds, drawn
from finespun.errors import DataError, listed
from finespun.tasks.answers.pixels import IGNORED, confusion, dice_loss, upsampled
from finespun.tasks.base import Columns, Defaults, Judgement, Outputs, Problem, Role, Values
from finespun.tasks.metrics.scores import segmentation_scores

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from PIL import Image
    from torchmetrics import MetricCollection

    from finespun.tasks.inputs.image_encoder import ImageEncoder

BACKGROUND = "background"  # the class of what no segment covers, where `classes` does not name one
SEGMENT = '{"label": "cat", "segmentation": [[x, y, x, y, x, y]]}'
PAIRS = 1000  # that a confusion matrix is drawn from
FOCUS = 2.0  # gamma of the focal loss (Lin et al., 2017)

Classes = Annotated[dict[int, str], BeforeValidator(lambda given: given and {int(k): v for k, v in dict(given).items()})]


class Drawn(NamedTuple):
    """The value of each pixel, (height, width), and what the values are called that are classes."""

    pixels: NDArray[np.uint16]
    names: Mapping[int, str]


class Masks(Defaults):
    """Reads `mask`: the path of a PNG with a palette or greys, in which each value is a class; or a list of segments.

    A segment is {label, segmentation}, with polygons or run lengths as COCO writes them. Where segments overlap, the smaller
    one lies on top. What none covers is the class of the value 0, or unlabelled where `classes` has others and no 0.
    """

    answer_roles: ClassVar[Mapping[str, Role]] = {"mask": Role(lists=True)}
    cannot_keep: ClassVar[tuple[str, ...]] = ("bad_target",)
    headline: ClassVar[tuple[str, ...]] = ("mean_iou", "pixel_accuracy", "mean_accuracy")
    from_logits: ClassVar[bool] = False
    max_megapixels: float

    classes: Classes | None  # value of a pixel -> class; None: each value that occurs is a class, called by its number
    ignore_value: Annotated[int, Field(ge=0, lt=65536)] | None  # of pixels that nobody has labelled
    loss_function: Literal["cross_entropy", "focal", "dice", "cross_entropy_and_dice"]
    class_weights: bool  # pixels of rare classes weigh more: by the inverse of their share of the training pixels
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    monitor: Literal["val/mean_iou", "val/pixel_accuracy", "val/mean_accuracy", "val/loss"]
    monitor_mode: Literal["max", "min"]

    if TYPE_CHECKING:  # the input's, with its default
        _places: images.Places
    _names: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)  # mask -> the classes in it
    _weights: tuple[float, ...] | None = PrivateAttr(None)

    @field_validator("classes")
    @classmethod
    def _names_each_once(cls, classes: dict[int, str] | None) -> dict[int, str] | None:
        given = [*(classes or {}).values()]
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise ValueError(f"names {listed(twice)} twice; name each class once")
        if classes is not None and len(classes) < 2:
            raise ValueError("names fewer than two classes; name the background, too")
        if classes and not all(0 <= value < 65536 for value in classes):
            raise ValueError("values of pixels are whole numbers from 0 to 65535")
        return classes

    def _mask(self, name: str) -> NDArray[np.uint16]:
        return images.read_mask(name, self._places, max_pixels=int(self.max_megapixels * 1e6))

    def _called(self, value: int) -> str | None:
        return str(value) if self.classes is None else self.classes.get(value)

    def answers(self, values: Values) -> Sequence[str]:
        given = values["mask"]
        if isinstance(given, list):
            background = [self._background] if self._background is not None else []
            return [*dict.fromkeys([*background, *(str(each["label"]) for each in given if isinstance(each, Mapping))])]
        if given not in self._names:
            self._names[given] = tuple(self._of_file(given).names.values())
        return self._names[given]

    @property
    def _background(self) -> str | None:
        """What pixels are called that no segment covers."""
        return BACKGROUND if self.classes is None else self.classes.get(0)

    def _of_file(self, name: str) -> Drawn:
        pixels = self._mask(name)
        values = (int(each) for each in np.unique(pixels) if each != self.ignore_value)
        return Drawn(pixels, {value: called for value in values if (called := self._called(value)) is not None})

    def _of_segments(self, segments: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Drawn:
        """Returns segments on an image of (width, height): the value of the first label is 1, that of the background 0."""
        labels = [*dict.fromkeys(str(each["label"]) for each in segments)]
        found = np.zeros((size[1], size[0]), dtype=np.uint16)
        regions = [(region_of(each, size), labels.index(str(each["label"])) + 1) for each in segments]
        for region, value in sorted(regions, key=lambda pair: -int(pair[0].sum())):
            found[region] = value
        named = {0: self._background} if self._background is not None else {}
        return Drawn(found, named | dict(enumerate(labels, 1)))

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        yield from super().problems(values, labels)
        if "mask" not in values:
            return
        size = self._size_of(values)
        if isinstance(values["mask"], list):
            yield from self._problems_of_segments(values["mask"], size)
            return
        try:
            mask = self._mask(values["mask"])
        except images.UnreadableError as error:
            yield "bad_target", "mask", str(error)
            return
        height, width = mask.shape
        if size is not None and size != (width, height):
            yield "bad_target", "mask", f"is {width} x {height} pixels and its image {size[0]} x {size[1]}; make them the same"
        known = {*np.unique(mask).tolist()} - {self.ignore_value}
        odd = sorted(value for value in known if self._called(value) is None)
        if odd:
            row, column = (int(each[0]) for each in np.nonzero(mask == odd[0]))
            remedy = (
                f"has the value {odd[0]} (at row {row}, column {column}), which is none of task.classes"
                f" ({listed(f'{value}: {name}' for value, name in (self.classes or {}).items())}); name it there, or set"
                f" task.ignore_value: {odd[0]}"
            )
            yield "bad_target", "mask", remedy
        elif not known:
            yield "bad_target", "mask", f"has nothing but the value {self.ignore_value}, which task.ignore_value leaves out"

    def _problems_of_segments(self, segments: Sequence[Any], size: tuple[int, int] | None) -> Iterator[Problem]:
        for number, each in enumerate(segments, 1):
            where = each.get("where") if isinstance(each, Mapping) else None
            named = f"segment {number}" + (f" ({where})" if where else "")
            if not isinstance(each, Mapping) or not isinstance(each.get("label"), str) or "segmentation" not in each:
                yield "bad_target", "mask", f"{named} has no label or no segmentation ({str(each)[:80]}); write {SEGMENT}"
                continue
            if self.classes is not None and each["label"] not in self.classes.values():
                known = listed(f"{value}: {name}" for value, name in self.classes.items())
                wrong = (
                    f"{named}: label {each['label']!r} is none of task.classes ({known}); name it there, or correct the label"
                )
                yield "unknown_label", "mask", wrong
            try:
                region_of(each, size or (None, None))
            except RegionError as error:
                yield "bad_target", "mask", f"{named} {error}"

    def _size_of(self, values: Values) -> tuple[int, int] | None:
        """Returns width and height of a row's image, or None where it cannot be read: the input's."""
        raise NotImplementedError

    def _joined(self, rows: pa.Table, outputs: Outputs) -> tuple[pa.Table, Outputs]:
        """Returns a row an image and its output, where rows are parts of images: the input's."""
        raise NotImplementedError

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        """Returns the classes in the order of their values."""
        names = {*found}
        plain = all(name.isdecimal() for name in names)
        numbers = sorted(names, key=int) if plain else sorted(names, key=lambda name: (name != BACKGROUND, name))
        ordered = numbers if self.classes is None else [each for _, each in sorted(self.classes.items())]
        kept = [name for name in ordered if name in names]
        if not 2 <= len(kept) <= IGNORED:
            raise DataError(
                f"data.columns.mask: the masks have {len(kept)} classes ({listed(kept[:5])}), and 2 to {IGNORED} can be told"
                " apart; look at the values of their pixels, and name them in task.classes"
            )
        return kept

    def encode(self, rows: Sequence[Values], encoder: ImageEncoder, labels: Sequence[str] | None) -> Columns:
        """Returns `target`, the position of each pixel's class or IGNORED, (height, width) bytes a row, and their number."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        if labels is None:
            return {}
        height, width = encoder.size
        found = []
        for row in rows:
            mask = self._drawn(row)
            left, top, right, bottom = row.get("tile", (0, 0, *mask.pixels.shape[::-1]))
            positions = np.full(65536, IGNORED, dtype=np.uint8)
            for value, name in mask.names.items():
                if name in labels:
                    positions[value] = labels.index(name)
            target = np.full((height, width), IGNORED, dtype=np.uint8)
            inside = encoder.filled((right - left, bottom - top))  # all but padding
            target[: inside[0], : inside[1]] = nearest(positions[mask.pixels[top:bottom, left:right]], inside[::-1])
            found.append(target)
        return {
            "mask": pa.array([str(row["mask"])[:1000] for row in rows], pa.string()),
            "target": pa.array([each.tobytes() for each in found], pa.binary(height * width)),
            "labelled": pa.array([int((each != IGNORED).sum()) for each in found], pa.int64()),
        }

    def _drawn(self, values: Values) -> Drawn:
        if not isinstance(values["mask"], list):
            return self._of_file(values["mask"])
        size = self._size_of(values)
        assert size is not None, "checked before"
        return self._of_segments(values["mask"], size)

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: ImageEncoder
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns no inputs; the position of each pixel's class or IGNORED, (rows, height, width)."""
        import torch  # noqa: PLC0415  (prepare encodes with this class and imports no torch)

        if "target" not in columns:
            return {}, None
        pixels = np.frombuffer(b"".join(columns["target"]), np.uint8).reshape(-1, *encoder.size)
        return {}, torch.from_numpy(pixels.astype(np.int64))

    def counts(self, table: pa.Table) -> NDArray[np.float64]:
        """Returns the pixels of each row that have a class."""
        return np.asarray(table["labelled"].to_numpy(), dtype=np.float64)

    def fitted(self, train: pa.Table, labels: Sequence[str]) -> Self:
        if not self.class_weights:
            return self
        pixels = sum((_histogram(row, len(labels)) for row in _targets(train)), np.zeros(len(labels)))
        weights = np.divide(pixels.sum(), pixels, out=np.zeros_like(pixels), where=pixels > 0)
        mean = (weights * pixels).sum() / pixels.sum()  # so that the mean pixel weighs one
        found = self.model_copy()
        found._weights = tuple((weights / mean).tolist())  # noqa: SLF001  (a copy of this very class)
        return found

    def losses(self, output: torch.Tensor, batch: Any, *, training: bool = False) -> torch.Tensor:
        """Returns the mean over the pixels of each row that have a class; Dice, which has no pixels, one value a row."""
        logits, targets = upsampled(output, batch.targets), batch.targets
        known = targets != IGNORED
        found = logits.new_zeros(len(targets))
        if self.loss_function != "dice":
            pixels = self._of_pixels(logits, targets, smoothing=self.label_smoothing if training else 0.0)
            found = found + (pixels * known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)
        if self.loss_function in {"dice", "cross_entropy_and_dice"}:
            found = found + dice_loss(logits, targets)
        return found

    def _of_pixels(self, logits: torch.Tensor, targets: torch.Tensor, *, smoothing: float) -> torch.Tensor:
        from torch.nn import functional  # noqa: PLC0415

        weight = None if self._weights is None else logits.new_tensor(self._weights)
        losses = functional.cross_entropy(
            logits, targets, weight=weight, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing
        )
        if self.loss_function != "focal":
            return losses
        chance = logits.softmax(1).gather(1, targets.where(targets != IGNORED, 0)[:, None])[:, 0]
        return losses * (1 - chance) ** FOCUS

    def metrics(self, labels: Sequence[str]) -> MetricCollection:
        from finespun.tasks.metrics.validation import over_batches  # noqa: PLC0415  (imports torch)

        def counted(output: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = confusion(upsampled(output, targets).argmax(1), targets, len(labels))
            return found, found.new_zeros(len(found))

        return over_batches(self.headline, counted, lambda counts, _, weights: self.scores(counts, None, weights, labels))

    def scores(self, counts: Any, _: Any, weights: Any, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        return segmentation_scores(counts, weights, labels=labels)

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        """Returns `shares` of the classes and `mask`: a PNG of the image's size, as text, of positions of labels."""
        rows, outputs = self._joined(rows, outputs)
        names = ("original_width", "original_height")
        sizes = zip(*(rows[name].to_pylist() for name in names), strict=True)
        found = []
        for output, size in zip(outputs, sizes, strict=True):
            mask = nearest(np.asarray(output).astype(np.uint8), size)
            shares = np.bincount(mask.ravel(), minlength=len(labels)) / mask.size
            order = np.argsort(-shares, kind="stable")
            told = {labels[index]: round(float(shares[index]), 6) for index in order if shares[index] > 0}
            found.append({"shares": told, "mask": as_png(mask)})
        return found

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        rows, outputs = self._joined(rows, outputs)
        counts = np.stack(outputs).astype(np.int64)
        each = segmentation_scores(counts, np.eye(len(counts)), labels=labels)
        table: dict[str, Any] = {name: rows[name] for name in ("row", "image", "mask") if name in rows.column_names}
        table |= {name: each[name] for name in self.headline}
        total = counts[..., : len(labels)].sum(axis=0)
        shown = np.round(total / max(1, total.sum()) * PAIRS).astype(int)
        pairs = [(labels[a], labels[p]) for a, p in np.argwhere(shown) for _ in range(shown[a, p])]
        return Judgement(
            units=len(counts), scores=partial(self.scores, counts, None, labels=labels), table=table,
            actual=[a for a, _ in pairs], predicted=[p for _, p in pairs], classes=labels,
            without_rows=[label for label, pixels in zip(labels, total.sum(axis=1), strict=True) if not pixels],
        )  # fmt: skip

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        """Returns the class that most training pixels have, everywhere, and the one that most have at the same place."""
        count = len(labels)
        at_place = np.zeros((count, len(train["target"][0].as_py())))
        for target in _targets(train):
            for label in range(count):
                at_place[label] += target == label
        most = np.full(at_place.shape[1], at_place.sum(axis=1).argmax())
        simple = {"most_frequent_class": most, "usual_class_of_place": at_place.argmax(axis=0)}
        return {name: [_pairs(target, mask, count) for target in _targets(split)] for name, mask in simple.items()}


def region_of(segment: Mapping[str, Any], size: tuple[int, int] | tuple[None, None]) -> Mask:
    """Returns the pixels of a segment in an image of (width, height); of an unknown size, nothing, once its form is checked.

    Raises:
        RegionError: it is none in such an image.
    """
    given = segment["segmentation"]
    width, height = size
    if width is None or height is None:
        bounds(given)
        return np.zeros((0, 0), dtype=bool)
    return drawn(given, width, height, shares=bool(segment.get("shares")))


def _targets(table: pa.Table) -> Iterator[NDArray[np.uint8]]:
    """Yields the flat mask of each row."""
    for batch in table.select(["target"]).to_batches():
        yield from (np.frombuffer(each.as_buffer(), np.uint8) for each in batch["target"])


def _histogram(target: NDArray[np.uint8], count: int) -> NDArray[np.float64]:
    return np.bincount(target[target != IGNORED], minlength=count).astype(np.float64)


def _pairs(target: NDArray[np.uint8], mask: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    known = target != IGNORED
    found = np.bincount(target[known].astype(np.int64) * count + mask[known], minlength=count * count)
    return found.reshape(count, count).astype(np.float64)


def nearest(values: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns values at another (width, height), each the nearest of the old ones."""
    from PIL import Image  # noqa: PLC0415  (configure checks tasks and decodes nothing)

    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.NEAREST))


def as_png(mask: NDArray[np.uint8]) -> str:
    """Returns a mask as text, a PNG with a palette: one colour a class, black for the first."""
    from PIL import Image  # noqa: PLC0415

    file = io.BytesIO()
    picture: Image.Image = Image.fromarray(mask).convert("P")
    picture.putdata(mask.ravel().tolist())
    picture.putpalette(palette())
    picture.save(file, "PNG")
    return f"{images.INLINE}png;base64,{base64.b64encode(file.getvalue()).decode()}"


def palette() -> list[int]:
    """Returns 256 colours as PASCAL VOC's masks have them: red, green and blue of each, one after the other."""
    found = []
    for number in range(256):
        for channel in range(3):
            bits = [(number >> (3 * place + channel)) & 1 for place in range(3)]
            found.append(sum(bit << (7 - place) for place, bit in enumerate(bits)))
    return found
