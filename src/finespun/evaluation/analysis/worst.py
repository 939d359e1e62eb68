"""The worst mistakes of a split, with what helps to understand them: training rows like them, pictures, explanations."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.evaluation.analysis.kept_predictions import CHANCE, numbers_of
from finespun.tasks.base import Judgement, Task
from finespun.tasks.inputs.image_files import pixels_of

if TYPE_CHECKING:
    from PIL import Image

    from finespun.evaluation.analysis.attribution import Explained

MOST = 30  # mistakes
NEIGHBOURS = 3  # of each
SIDE = 96  # pixels of a picture
LONGEST = 300  # characters of a neighbour's text
READ = ("text", "text_pair", "image")


@runtime_checkable
class Seen(Protocol):
    """A task whose rows have features that simple methods see: TF-IDF weights, small grey pictures."""

    def features(self, train: pa.Table, split: pa.Table) -> tuple[Any, Any]:
        """Returns (rows, features) of both."""


def worst(judged: Judgement, *, task: Task, prepared: PreparedData, split: str, count: int = MOST) -> list[dict[str, Any]]:
    """Returns the worst mistakes: `place` in the split, `row`, `neighbours` (nearest training rows first), `picture`.

    A neighbour has `row`, `said` (its text), `answer`, `similarity` (the cosine of features) and for images a `picture`.
    Tasks whose rows have no features, and rows that are cut up, give nothing.
    """
    table, rows = pa.table(judged.table), prepared.open(split)
    if not isinstance(task, Seen) or table.num_rows != rows.num_rows:
        return []
    places = worst_places(table, count)
    if not places:
        return []
    train, asked = prepared.open("train"), rows.take(places)
    found = []
    for number, (place, near) in enumerate(zip(places, nearest(*task.features(train, asked), NEIGHBOURS), strict=True)):
        like = train.take([each for each, _ in near])
        told = [
            {"row": row.get("row", 0), "said": _said(row), "answer": answer, "similarity": similarity, **_picture(like, at)}
            for at, (row, answer, (_, similarity)) in enumerate(
                zip(_plain(like), _answers(like, table, prepared.labels), near, strict=True)
            )
        ]
        found.append({"place": place, "row": table["row"][place].as_py(), "neighbours": told, **_picture(asked, number)})
    return found


def worst_places(predictions: pa.Table, count: int) -> list[int]:
    """Returns positions of wrong rows, the surest (of labels) or those farthest off (of numbers) first."""
    weights = _wrongness(predictions)
    order = np.argsort(-weights, kind="stable")[:count]
    return [int(place) for place in order if weights[place] > 0]


def _wrongness(predictions: pa.Table) -> NDArray[np.float64]:
    """Returns how wrong each row is, (rows,); 0 for those that are right, and of tasks that are not known here."""
    names = predictions.column_names
    if "predicted" in names and ("label" in names or "labels" in names):
        pairs = zip(predictions["label" if "label" in names else "labels"].to_pylist(),
                    predictions["predicted"].to_pylist(), strict=True)  # fmt: skip
        if "labels" in names:
            return np.array([float(len({*actual} ^ {*found})) for actual, found in pairs])
        chances = {name: predictions[name].to_numpy() for name in names if name.startswith(CHANCE)}
        return np.array([
            float(chances[CHANCE + found][place]) if actual != found else 0.0 for place, (actual, found) in enumerate(pairs)
        ])  # fmt: skip
    errors = [
        np.abs(predictions[name].to_numpy() - predictions[f"predicted_{name}"].to_numpy()) for name in numbers_of(predictions)
    ]
    return np.max(errors, axis=0) if errors else np.zeros(predictions.num_rows)


def nearest(seen: Any, asked: Any, count: int) -> Iterator[list[tuple[int, float]]]:
    """Yields for each row of `asked` the rows of `seen` with the largest cosines, (rows, features) each, dense or sparse."""
    from sklearn.preprocessing import normalize  # noqa: PLC0415  (1 s that only reports need)

    seen, asked = normalize(seen), normalize(asked)
    for place in range(asked.shape[0]):
        found = seen @ asked[place : place + 1].T
        cosines = np.asarray(found.todense() if hasattr(found, "todense") else found).ravel()
        best = np.argsort(-cosines, kind="stable")[:count]
        yield [(int(each), float(cosines[each])) for each in best]


def _plain(table: pa.Table) -> list[dict[str, Any]]:
    return list(table.select([name for name in ("row", *READ) if name in table.column_names]).to_pylist())


def _said(row: Mapping[str, Any]) -> str:
    whole = " | ".join(str(row[name]) for name in READ if row.get(name) is not None)
    return whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}…"


def _answers(rows: pa.Table, predictions: pa.Table, labels: Sequence[str]) -> list[str]:
    """Returns the answers of rows of prepared data as a person reads them."""
    targets = rows["target"].to_pylist()
    if "label" in predictions.column_names:
        return [labels[target] for target in targets]
    if "labels" in predictions.column_names:
        return [", ".join(label for label, there in zip(labels, row, strict=True) if there) or "none" for row in targets]
    return [", ".join(f"{number:.4g}" for number in np.atleast_1d(row)) for row in targets]


def _picture(rows: pa.Table, place: int) -> dict[str, str]:
    """Returns the `picture` of a row as an address that holds it; nothing where rows have no pixels."""
    if "pixels" not in rows.column_names:
        return {}
    return {"picture": inline(_image(rows, place))}


def _image(rows: pa.Table, place: int) -> Image.Image:
    from PIL import Image  # noqa: PLC0415

    return Image.fromarray(pixels_of(rows.slice(place, 1).to_pylist()[0]))


def inline(image: Image.Image) -> str:
    """Returns an image, no larger than `SIDE`, as an address that holds it."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    kind = "PNG" if max(small.size) <= SIDE // 2 else "JPEG"
    small.save(file, kind, **({"quality": 75} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def explained(
    found: Sequence[Mapping[str, Any]], *, folder: Path, prepared: PreparedData, split: str, config: RunConfig
) -> list[dict[str, Any]]:
    """Returns the mistakes with an `explanation` of as many as `evaluation.explain` says.

    Raises:
        MachineError: captum is not installed.
    """
    from finespun.evaluation.analysis.attribution import can_explain, explain  # noqa: PLC0415  (imports torch)
    from finespun.evaluation.predictor import Predictor  # noqa: PLC0415

    count = config.evaluation.explain
    if not count or not found:
        return [dict(each) for each in found]
    predictor, columns = Predictor(folder, trust_remote_code=config.model.trust_remote_code), prepared.schema["columns"]
    if not can_explain(predictor.task):
        return [dict(each) for each in found]
    rows = prepared.open(split).take([each["place"] for each in found[:count]])
    given = [{columns[role]: value for role, value in predictor.task.given(row).items()} for row in rows.to_pylist()]
    told = [explain(predictor, row) for row in given]
    return [
        {**each, "explanation": _told(told[number], rows, number)} if number < len(told) else dict(each)
        for number, each in enumerate(found)
    ]


def _told(found: Explained, rows: pa.Table, place: int) -> dict[str, Any]:
    """Returns an explanation as plain values; of an image, the `picture` with its heat in place of numbers."""
    from finespun.evaluation.drawing import with_heat  # noqa: PLC0415

    plain = asdict(found) | {"holds": found.holds}
    if found.grid is not None:
        plain |= {"scores": (), "picture": inline(with_heat(_image(rows, place), found.scores, found.grid))}
    return plain
