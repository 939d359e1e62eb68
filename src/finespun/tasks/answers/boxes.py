"""Boxes with labels as a task's answer: read in many forms, checked, scored as COCO does."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from finespun.data.cells import label_name
from finespun.errors import DataError
from finespun.tasks.answers.one_label import unknown_label
from finespun.tasks.answers.several_labels import NONE
from finespun.tasks.base import Columns, Defaults, Judgement, Outputs, Problem, Role, Values
from finespun.tasks.metrics.detection import Boxes as Placed
from finespun.tasks.metrics.detection import DetectionScores, overlaps

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torchmetrics import MetricCollection

EDGES = ("x_min", "y_min", "x_max", "y_max")
WIDTH = 6  # numbers of a target: label, centre and size as shares of the image, whether it is a crowd
FOUND = 6  # numbers of a detection: label, score, edges as shares of the image
PADDING = -1.0  # label of a target that is none
WHOLE = "whole_target"  # column of the targets of the image that a tile is of
LEAST = 0.1  # of a box's area that must be left of it, where images are moved or cut into tiles
SLACK = 1.0  # pixels that a box may reach outside: rounding
MEETS = 0.5  # intersection over union from which a detection is of a box, in pictures
FORM = '{"x_min": 1, "y_min": 2, "x_max": 30, "y_max": 40, "label": "cat"}, or "bbox": [x, y, width, height]'


class Box(NamedTuple):
    """Edges in pixels."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    label: str
    crowd: bool = False


class BoxList(Defaults):
    """Reads `boxes`: a list of objects with edges, or with COCO's `bbox`, and a label."""

    answer_roles: ClassVar[Mapping[str, Role]] = {"boxes": Role(lists=True)}
    headline: ClassVar[tuple[str, ...]] = ("map", "map_50", "map_75", "recall_100")
    from_logits: ClassVar[bool] = False

    coordinates: Literal["pixels", "shares"]  # of boxes: pixels of the image, or shares of its sides
    min_score: Annotated[float, Field(ge=0, le=1)]  # of boxes that a prediction names; scores count all
    max_boxes: Annotated[int, Field(gt=0)]  # of an image, those with the highest scores
    monitor: Literal["val/map", "val/map_50", "val/map_75", "val/loss"]
    monitor_mode: Literal["max", "min"]

    def _size_of(self, values: Values) -> tuple[int, int] | None:
        """Returns width and height of a row's image, or None where it cannot be read: the input's."""
        raise NotImplementedError

    def _joined(self, rows: pa.Table, outputs: Outputs) -> tuple[pa.Table, Outputs]:
        """Returns a row an image and its output, where rows are parts of images: the input's."""
        raise NotImplementedError

    def answers(self, values: Values) -> Sequence[str]:
        found = (as_box(each, 1, 1) for each in _as_list(values["boxes"]))
        return list(dict.fromkeys(box.label for box in found if isinstance(box, Box)))

    def label_names(self, found: Iterable[str], columns: Mapping[str, Any]) -> list[str]:
        names = list(found)
        if not names:
            raise DataError(f"data.columns.boxes: no image has a box in {columns['boxes']!r}; look at the column")
        return names

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        yield from super().problems(values, labels)
        if "boxes" not in values:
            return
        if isinstance(values["boxes"], str) and values["boxes"].strip():
            yield "bad_target", "boxes", f"is no list of boxes; write a list of {FORM}"
            return
        size = self._size_of(values)
        width, height = size or (math.inf, math.inf)
        seen: dict[Box, str] = {}
        for number, given in enumerate(_as_list(values["boxes"]), 1):
            where = given.get("where") if isinstance(given, Mapping) else None
            named = f"box {number}" + (f" ({where})" if where else "")
            box = as_box(given, *(self._scale(given, size) if size else (1, 1)))
            if isinstance(box, str):
                yield "bad_target", "boxes", f"{named} {box}"
                continue
            shares = size is not None and self._scale(given, size) == size
            remedy = unknown_label(box.label, labels)
            if remedy:
                yield "unknown_label", "boxes", f"{named}: label {box.label!r} {remedy}"
            yield from (("bad_target", "boxes", f"{named} {wrong}") for wrong in _wrong(box, width, height, shares=shares))
            if box in seen:
                yield "bad_target", "boxes", f"{named} is the same as {seen[box]}; remove one of them"
            seen[box] = named

    def _scale(self, given: Any, size: tuple[int, int]) -> tuple[int, int]:
        """Returns what a box's numbers are shares of, 1 where they are pixels; boxes may say of themselves that they are."""
        shares = self.coordinates == "shares" or (isinstance(given, Mapping) and given.get("shares"))
        return size if shares else (1, 1)

    def encode(self, rows: Sequence[Values], encoder: Any, labels: Sequence[str] | None) -> Columns:
        """Returns `target`, six numbers a box (label, centre and size as shares of the image, crowd), where labels are given.

        What `data.checks.bad_target: warn` let through is clipped to the image; a box of which nothing is left is left out.
        """
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        if labels is None:
            return {}
        found: dict[str, list[list[float]]] = {"target": [], WHOLE: []}
        for row in rows:
            size = self._size_of(row)
            assert size is not None, "checked before"
            given = (as_box(each, *self._scale(each, size)) for each in _as_list(row["boxes"]))
            boxes = [box for box in given if isinstance(box, Box) and box.label in labels]
            found[WHOLE].append(_targets(boxes, size, labels))
            if "tile" in row:
                left, top, right, bottom = row["tile"]
                boxes = [part for box in boxes if (part := _part(box, row["tile"])) is not None]
                size = right - left, bottom - top
            found["target"].append(_targets(boxes, size, labels))
        kept = ["target", *([WHOLE] if any("tile" in row for row in rows) else [])]
        return {name: pa.array(found[name], pa.list_(pa.float32())) for name in kept}

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: Any
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns no inputs; the boxes, (rows, most boxes, 6), padded with the label PADDING."""
        import torch  # noqa: PLC0415  (prepare encodes with this class and imports no torch)

        if "target" not in columns:
            return {}, None
        boxes = [np.asarray(each, dtype=np.float32).reshape(-1, WIDTH) for each in columns["target"]]
        found = torch.full((len(boxes), max(1, *map(len, boxes)), WIDTH), PADDING)
        for place, each in enumerate(boxes):
            found[place, : len(each)] = torch.from_numpy(each.copy())
        return {}, found

    def counts(self, table: pa.Table) -> NDArray[np.float64]:
        """Returns the boxes of each row: what detectors' losses are means over."""
        return np.array([len(each) // WIDTH for each in table["target"]], dtype=np.float64)

    def losses(self, output: Any, batch: Any, *, training: bool = False) -> torch.Tensor:
        """Returns the model's own loss of the batch, for each row."""
        found: torch.Tensor = output["losses"]
        return found

    def metrics(self, labels: Sequence[str]) -> MetricCollection:
        import torch  # noqa: PLC0415

        from finespun.tasks.metrics.validation import over_batches  # noqa: PLC0415  (imports torch)

        def kept(output: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Detections with the number of boxes behind them, (rows, ...), and the boxes of all rows, (boxes, 6)."""
            there = targets[..., 0] != PADDING
            found = output["found"].flatten(1)
            return torch.cat([found, there.sum(1, keepdim=True)], 1), targets[there]

        def score(found: Any, boxes: Any, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            parts = np.split(boxes, np.cumsum(found[:, -1].astype(int))[:-1])
            actual = [_actual(each, (1, 1)) for each in parts]
            detected = [_detected(each[:-1].reshape(-1, FOUND), (1, 1)) for each in found]
            return DetectionScores(actual, detected, labels=labels, sizes=("all",))(weights)

        return over_batches(["map", "map_50", "map_75"], kept, score)

    def scores(self, targets: Any, outputs: Any, weights: Any, labels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        return DetectionScores(targets, outputs, labels=labels)(weights)

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        """Returns `boxes`, those with `min_score` at least, the highest first: edges in the image's pixels, label and score."""
        rows, outputs = self._joined(rows, outputs)
        return [
            {"boxes": self._shown(output, size, labels)} for output, size in zip(outputs, _sizes(rows), strict=True)
        ]  # fmt: skip

    def _shown(self, output: NDArray[np.float64], size: tuple[int, int], labels: Sequence[str]) -> list[dict[str, Any]]:
        found = _detected(output, size)
        return [
            {"label": labels[label], "score": round(float(score), 6), **_edges(place)}
            for place, label, score in zip(found.places, found.labels, found.scores, strict=True)
            if score >= self.min_score
        ]

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        rows, outputs = self._joined(rows, outputs)
        sizes = list(_sizes(rows))
        boxes = [np.asarray(each, dtype=np.float64).reshape(-1, WIDTH) for each in rows["target"].to_pylist()]
        actual = [_actual(each, size) for each, size in zip(boxes, sizes, strict=True)]
        found = [_detected(each, size) for each, size in zip(outputs, sizes, strict=True)]
        of_rows = [[*self._pairs(a, f, labels)] for a, f in zip(actual, found, strict=True)]
        pairs = [pair for each in of_rows for pair in each] or [(NONE, NONE)]
        told = [
            [{"label": labels[label], **_edges(place)} for place, label in zip(each.places, each.labels, strict=True)]
            for each in actual
        ]
        table: dict[str, Any] = {name: rows[name] for name in ("row", "image") if name in rows.column_names}
        table["boxes"] = [json.dumps(each, ensure_ascii=False) for each in told]
        detections = [self._shown(output, size, labels) for output, size in zip(outputs, sizes, strict=True)]
        table["detections"] = [json.dumps(each, ensure_ascii=False) for each in detections]
        table["mistakes"] = [sum(one != other for one, other in each) for each in of_rows]
        given = Counter(int(label) for each in actual for label in each.labels)
        return Judgement(
            units=len(actual), scores=DetectionScores(actual, found, labels=labels), table=table,
            actual=[a for a, _ in pairs], predicted=[p for _, p in pairs], classes=[*labels, NONE],
            without_rows=[label for place, label in enumerate(labels) if not given[place]],
        )  # fmt: skip

    def _pairs(self, actual: Placed, found: Placed, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yields the labels of boxes and of detections that meet them, whatever these are called, the best overlap first."""
        sure = found.scores >= self.min_score
        places, said = found.places[sure], found.labels[sure]
        overlap = overlaps(places, actual.places, np.zeros(len(actual.places), dtype=bool))
        left, missed = set(range(len(places))), set(range(len(actual.places)))
        for place in np.argsort(-overlap, axis=None, kind="stable").tolist():
            one, other = divmod(place, max(1, overlap.shape[1]))
            if overlap[one, other] < MEETS:
                break
            if one in left and other in missed:
                left.remove(one)
                missed.remove(other)
                yield labels[actual.labels[other]], labels[said[one]]
        yield from ((labels[actual.labels[each]], NONE) for each in sorted(missed))
        yield from ((NONE, labels[said[each]]) for each in sorted(left))

    def baselines(self, train: pa.Table, split: pa.Table, labels: Sequence[str]) -> dict[str, Outputs]:
        """Returns for every image the median box of each label, scored by how many training images have one."""
        rows = [np.asarray(each, dtype=np.float64).reshape(-1, WIDTH) for each in train["target"].to_pylist()]
        boxes = np.concatenate([*rows, np.zeros((0, WIDTH))])
        found = []
        for label in range(len(labels)):
            mine = boxes[boxes[:, 0] == label]
            if len(mine):
                share = np.mean([(row[:, 0] == label).any() for row in rows])
                found.append([label, share, *_corners(np.median(mine[:, 1:5], axis=0)[None])[0]])
        return {"usual_box_of_label": [np.array(found).reshape(-1, FOUND)] * split.num_rows}


def _as_list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []


def as_box(given: Any, width: float, height: float) -> Box | str:
    """Returns a box whose numbers are shares of `width` and `height` (1: pixels), or what is wrong with it."""
    label = None
    if isinstance(given, list | tuple) and len(given) == 5:
        numbers, label, crowd = given[:4], given[4], False
    elif isinstance(given, Mapping):
        label, crowd = given.get("label", given.get("category")), bool(given.get("crowd", given.get("iscrowd")))
        plain = given.get("box", [given.get(name) for name in EDGES])
        numbers = given.get("bbox", plain)
    if not isinstance(label, str) or not isinstance(numbers, list | tuple) or len(numbers) != 4:
        return f"has not four numbers and a label ({str(given)[:80]}); write {FORM}"
    try:
        edges = [float(str(each)) for each in numbers]
    except ValueError:
        edges = [math.nan]
    if not all(map(math.isfinite, edges)):
        return f"has something that is no number ({', '.join(map(str, numbers))}); correct it"
    if isinstance(given, Mapping) and "bbox" in given:
        edges = [*edges[:2], edges[0] + edges[2], edges[1] + edges[3]]
    left, top, right, bottom = edges
    return Box(left * width, top * height, right * width, bottom * height, label_name(label), crowd)


def _wrong(box: Box, width: float, height: float, *, shares: bool) -> Iterator[str]:
    """Yields what is wrong with a box in pixels, as remedies."""
    told = f"({', '.join(f'{each:g}' for each in box[:4])})"
    clip = "or set data.checks.bad_target: warn to clip such boxes"
    if box.x_max < box.x_min or box.y_max < box.y_min:
        yield f"{told} has swapped corners: x_max is below x_min, or y_max below y_min; swap them"
    elif box.x_max == box.x_min or box.y_max == box.y_min:
        yield f"{told} is empty: its width or height is 0; remove it"
    elif box.x_min >= width or box.y_min >= height or box.x_max <= 0 or box.y_max <= 0:
        yield f"{told} lies outside the image of {width:g} x {height:g} pixels; correct or remove it"
    elif box.x_min < -SLACK or box.y_min < -SLACK or box.x_max > width + SLACK or box.y_max > height + SLACK:
        yield f"{told} reaches outside the image of {width:g} x {height:g} pixels; correct it, {clip}"
    if not shares and max(map(abs, box[:4])) <= 1 and math.isfinite(width):
        yield f"{told} has no pixel; where numbers are shares of the image's sides, set task.coordinates: shares"


def _part(box: Box, tile: Sequence[int]) -> Box | None:
    """Returns what of a box lies in a tile, in the tile's own pixels; None where that is less than LEAST of it."""
    left, top, right, bottom = tile
    low = max(box.x_min, left), max(box.y_min, top)
    high = min(box.x_max, right), min(box.y_max, bottom)
    area = max(0, high[0] - low[0]) * max(0, high[1] - low[1])
    if area <= LEAST * (box.x_max - box.x_min) * (box.y_max - box.y_min):
        return None
    return Box(low[0] - left, low[1] - top, high[0] - left, high[1] - top, box.label, box.crowd)


def _targets(boxes: Iterable[Box], size: tuple[int, int], labels: Sequence[str]) -> list[float]:
    """Returns the targets of boxes, one after the other."""
    found = (_shares(box, size, labels) for box in boxes)
    return [number for each in found if each is not None for number in each]


def _shares(box: Box, size: tuple[int, int], labels: Sequence[str]) -> list[float] | None:
    """Returns a target of a box, clipped to its image; None where nothing is left of it."""
    (left, right), (top, bottom) = (
        sorted(min(max(each / side, 0.0), 1.0) for each in pair)
        for pair, side in (((box.x_min, box.x_max), size[0]), ((box.y_min, box.y_max), size[1]))
    )
    if right <= left or bottom <= top:
        return None
    return [labels.index(box.label), (left + right) / 2, (top + bottom) / 2, right - left, bottom - top, float(box.crowd)]


def _corners(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns edges of boxes (boxes, 4) given as centre and size."""
    half = centres[:, 2:] / 2
    return np.concatenate([centres[:, :2] - half, centres[:, :2] + half], axis=1)


def _actual(boxes: NDArray[np.float64], size: tuple[int, int]) -> Placed:
    return Placed(_corners(boxes[:, 1:5]) * np.tile(size, 2), boxes[:, 0].astype(np.int64), boxes[:, 5])


def _detected(found: NDArray[np.float64], size: tuple[int, int]) -> Placed:
    found = np.asarray(found, dtype=np.float64)
    found = found[found[:, 0] >= 0]
    return Placed(found[:, 2:] * np.tile(size, 2), found[:, 0].astype(np.int64), found[:, 1])


def _sizes(rows: pa.Table) -> Iterator[tuple[int, int]]:
    yield from zip(*(rows[name].to_pylist() for name in ("original_width", "original_height")), strict=True)


def _edges(place: NDArray[np.float64]) -> dict[str, float]:
    return {name: round(float(each), 3) for name, each in zip(EDGES, place, strict=True)}
