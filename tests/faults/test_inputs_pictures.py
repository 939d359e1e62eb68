"""Labels of any length, script and punctuation in pictures and in the terminal: readable, or numbered; never boxes or warnings."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.image import imread

from finespun.artifacts import Artifacts
from finespun.report import plots
from finespun.report.lettering import lettering
from finespun.report.summary import show

LONG = "a very long label of somebody's taxonomy that goes on and on, chapter {} of many parts"
KINDS: dict[str, tuple[list[str], list[str]]] = {
    "plain": (["sport", "art & culture"], ["sport", "art & culture"]),
    "markup": (["cost $5 to $6", "under_score_{x}", r"\\alpha", "^2", "[bold]x[/]"],) * 2,
    "line ends": (["a\nb", "c\td", "e\r\nf"], ["a b", "c d", "e f"]),
    "control characters": (["a\x07b", "c\x1b[31md", "\u200be"], ["ab", "c[31md", "e"]),
    "Arabic": (["\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "b"],) * 2,
    "Japanese": (["\u65e5\u672c\u8a9e", "\u4e2d\u6587 news", "news"], ["#1", "#2 news", "news"]),
    "Hindi": (["\u0939\u093f\u0928\u094d\u0926\u0940", "b"], ["#1", "b"]),
    "emoji": (["\U0001f9d1\u200d\U0001f4bb coder", "\U0001f9d1 coder"], ["#1 coder", "#2 coder"]),
    "long": ([LONG.format(1), "short"], ["a very long label of\u2026 many parts", "short"]),
    "long alike": ([LONG.format(1), LONG.format(2)], [f"#{n} a very long label of\u2026 many parts" for n in (1, 2)]),
    "alike after line ends": (["a b", "a\nb"], ["a b", "#2 a b"]),
    "nothing to see": (["\u200b", "b"], ["#1", "b"]),
    "surrogate": (["\U0010ffff", "b"], ["#1", "b"]),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, path: (figures.append(figure), save(figure, path)))
    return figures


@pytest.fixture
def own_fonts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib's fonts and no others, whatever this machine has."""
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if "mpl-data" in font.fname])


def draw(labels: list[str], folder: Path, **options: Any) -> None:
    random = np.random.default_rng(0)
    actual, predicted = ([labels[at] for at in random.integers(0, len(labels), 200)] for _ in range(2))
    plots.confusion(actual, predicted, labels, folder=folder, title="Confusion", **options)
    assert imread(folder / "confusion.png").std() > 0


def overlaps(figure: Figure) -> int:
    """How many pairs of neighbouring names at the axes lie over each other."""
    found = 0
    for names in (figure.axes[0].get_yticklabels(), figure.axes[0].get_xticklabels()):
        boxes = [name.get_window_extent() for name in names]
        if names[0].get_rotation() == 45:  # the boxes of turned texts overlap, the texts do not where they are far enough apart
            found += sum(two.x1 - one.x1 < names[0].get_fontsize() for one, two in pairwise(boxes))
        else:
            found += sum(one.overlaps(two) for one, two in pairwise(boxes))
    return found


@pytest.mark.usefixtures("own_fonts_alone")
@pytest.mark.parametrize("kind", KINDS)
def test_names_are_readable_or_numbered(tmp_path: Path, drawn: list[Figure], kind: str) -> None:
    labels, expected = KINDS[kind]
    draw(labels, tmp_path)  # a warning would be an error here
    axes = drawn[0].axes[0]
    assert [name.get_text() for name in axes.get_yticklabels()] == expected
    assert [name.get_text() for name in axes.get_xticklabels()] == expected
    assert not any(name.get_parse_math() for name in axes.get_yticklabels())
    assert ("#n is the n-th of the labels in details.json" in axes.get_xlabel().replace("\n", " ")) == (
        "#" in "".join(expected)
    )
    assert overlaps(drawn[0]) == 0


@pytest.mark.usefixtures("own_fonts_alone")
@pytest.mark.parametrize("count", [2, 12, 31, 100])
@pytest.mark.parametrize("name", ["{}", LONG])
def test_many_and_long_names_do_not_overlap(tmp_path: Path, drawn: list[Figure], count: int, name: str) -> None:
    draw([name.format(number) for number in range(count)], tmp_path)
    assert overlaps(drawn[0]) == 0
    height, width, _ = imread(tmp_path / "confusion.png").shape
    assert max(height, width) < 3000


def test_a_label_without_rows_is_marked(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(["a", "b", "c"], tmp_path, without_rows=["b"])
    assert [name.get_text() for name in drawn[0].axes[0].get_yticklabels()] == ["a", "b (no rows)", "c"]


def test_of_very_many_labels_the_most_frequent_are_drawn(
    tmp_path: Path, drawn: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(plots, "DRAWN", 3)
    labels = [f"label {number}" for number in range(9)]
    plots.confusion(labels[5:8] * 2, labels[5:8] * 2, labels, folder=tmp_path, title="t")
    axes = drawn[0].axes[0]
    assert [name.get_text() for name in axes.get_yticklabels()] == labels[5:8]
    assert "the 3 most frequent of 9 labels" in axes.get_xlabel()
    assert np.asarray(axes.images[0].get_array()).tolist() == np.eye(3).tolist()


@pytest.fixture
def font(tmp_path: Path) -> Iterator[str]:
    """A font of three Japanese characters, known to matplotlib."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for point in ((100, 700), (800, 700), (800, 0)):
        pen.lineTo(point)
    pen.closePath()
    names = {0x65E5: "one", 0x672C: "two", 0x8A9E: "three"}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys([".notdef", *names.values()], pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (900, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Somebodys Mincho", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "mincho.ttf"
    builder.save(path)
    before = list(fontManager.ttflist)
    fontManager.addfont(path)
    fontManager._findfont_cached.cache_clear()
    yield "Somebodys Mincho"
    fontManager.ttflist[:] = before


def test_a_font_of_this_machine_is_used_for_letters_that_matplotlibs_has_not(
    tmp_path: Path, drawn: list[Figure], font: str
) -> None:  # fmt: skip
    draw(["\u65e5\u672c\u8a9e", "news"], tmp_path)
    names = drawn[0].axes[0].get_yticklabels()
    assert [name.get_text() for name in names] == ["\u65e5\u672c\u8a9e", "news"]
    assert names[0].get_fontfamily() == ["DejaVu Sans", font]


@pytest.mark.usefixtures("own_fonts_alone")
def test_titles_are_wrapped_and_readable(tmp_path: Path, drawn: list[Figure]) -> None:
    title = "\u65e5 $x_{" + LONG * 3
    plots.confusion(["a"], ["b"], ["a", "b"], folder=tmp_path, title=title)
    plots.scatter(np.arange(9.0), np.arange(9.0), folder=tmp_path, title=title)
    plots.training([{"step": "1", "name": "train/loss", "value": "1"}], folder=tmp_path, monitor="val/loss", title=title)
    titles = [drawn[0].axes[0].get_title(), drawn[1].axes[0].get_title(), drawn[2].get_suptitle()]
    assert all(text.startswith("? $x_{a very") for text in titles)
    assert all(max(map(len, text.split("\n"))) <= 100 for text in titles)


def test_lettering_knows_the_characters_that_are_missing() -> None:
    with lettering("caf\u00e9 \u2192 \U0010fffe") as letters:
        assert letters.missing == {"\U0010fffe"}


def test_names_with_markup_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "120")
    artifacts = Artifacts(project=tmp_path, out=tmp_path)
    folder = artifacts.report("test")
    folder.mkdir(parents=True)
    bounds = {"value": 0.5, "low": 0.4, "high": 0.6}
    details = {
        "confidence": 0.9, "shown": ["accuracy", "[red]f1"], "scores": {"accuracy": bounds, "[red]f1": bounds},
        "baselines": {"[bold]mine[/]": {"accuracy": 0.1, "[red]f1": 0.2}},
        "labels_without_rows": ["[bold]gone[/]", "[/oops]", "\x1b[31mred"],
    }  # fmt: skip
    (folder / "details.json").write_text(json.dumps(details))
    (folder / "metrics.json").write_text(json.dumps({"rows": 9, "test_evaluations": 1, "accuracy": 0.5, "[red]f1": 0.5}))
    show(artifacts)
    said = capsys.readouterr().out
    assert "[bold]mine[/]" in said
    assert "[red]f1" in said
    assert "no row of the test split has the label [bold]gone[/], [/oops], '\\x1b[31mred'" in said


def test_the_table_behind_a_picture_has_the_names_themselves(tmp_path: Path) -> None:
    labels = [LONG.format(1), "\u65e5\u672c\u8a9e", 'a, "b"', "$x_{1}$"]
    draw(labels, tmp_path)
    with (tmp_path / "confusion.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["actual"] for row in rows} == {*labels}
