"""The report: one page with everything, whatever the task is, in which what users wrote is text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pytest

from finespun.report import charts, mistakes, page, words
from finespun.report.charts import Axis
from finespun.report.sections import examples
from reported import HOSTILE, facts, split_facts

VOID = {"meta", "input", "br", "img", "link", "hr"}
DRAWN = {"path", "circle", "rect", "line"}  # close themselves


class Outline(HTMLParser):
    """Elements of a page: their ids, their headings, what is open when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.names: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.names.append(tag)
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.names.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.wrong.append(tag)


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    return found


@pytest.fixture(scope="module")
def whole() -> str:
    return page.render(facts())


def test_the_page_is_whole_html_without_anything_from_elsewhere(whole: str) -> None:
    found = outline(whole)
    assert (found.open, found.wrong) == ([], [])
    assert len(found.ids) == len(set(found.ids))
    assert [link for link in found.links if not link.startswith("#")] == []
    assert {link[1:] for link in found.links} <= set(found.ids)
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"'(]?(https?:)?//", whole.replace(HOSTILE, ""))
    assert found.names.count("h1") == found.names.count("main") == 1


def test_the_page_has_all_that_it_promises(whole: str) -> None:
    sections = (
        "metrics",
        "data",
        "training",
        "confusion",
        "calibration",
        "slices",
        "mistakes",
        "labels",
        "cost",
        "lineage",
        "use",
    )
    assert set(sections) <= set(outline(whole).ids)
    for said in (
        "<td>0.750 ",
        "TF-IDF + logistic regression",
        "a" * 32,
        "c" * 40,
        "2.5 ms (median)",
        "52,386",
        "optimizer.lr",
    ):
        assert said in whole
    assert "left out: 2 rows, empty text" in whole
    assert "model.revision" not in whole, "what is not set is not shown"


def test_what_users_wrote_is_text(whole: str) -> None:
    assert "<script>document" not in whole
    assert "<img src=x" not in whole
    assert "<b>remark" not in whole
    assert whole.count("&lt;script&gt;document.title") >= 4, "as a mistake, an example, a neighbour and a suspected label"
    assert outline(whole).names.count("script") == 1


@pytest.mark.parametrize(
    ("accuracy", "baseline", "standing", "said"),
    [
        (0.8, 0.7, "better", "10.0 points better than the baseline TF-IDF + logistic regression (95% interval 7.0 to 13.0)"),
        (0.7, 0.8, "worse", "10.0 points worse than the baseline TF-IDF + logistic regression (95% interval 7.0 to 13.0)"),
        (0.8, 0.79, "even", "no different from the baseline TF-IDF + logistic regression (0.790) within noise"),
    ],
)
def test_the_verdict_is_one_sentence_beside_the_best_baseline(
    accuracy: float, baseline: float, standing: str, said: str
) -> None:
    found = split_facts(accuracy=accuracy, baseline=baseline)
    sentence = words.verdict(found.details, rows=200, split="test")
    assert words.standing(found.details) == standing
    assert sentence.startswith(f"Accuracy {accuracy:.3f} (95% interval ")
    assert sentence.endswith(f"{said}.")
    assert f'class="verdict {standing}"' in page.render(facts(found))


def test_an_error_is_better_when_it_is_smaller() -> None:
    found = split_facts(shown=["log_loss"])
    assert words.standing(found.details) == "better"
    assert "0.100 better than the baseline" in words.verdict(found.details, rows=200, split="test")


def test_without_baselines_the_result_stands_alone() -> None:
    found = split_facts(baselines={}, comparison={})
    assert words.standing(found.details) == "alone"
    assert (
        words.verdict(found.details, rows=200, split="test") == "Accuracy 0.800 (95% interval 0.750 to 0.850) on 200 test rows."
    )


def test_a_bad_model_suspects_no_labels() -> None:
    assert 'id="labels"' not in page.render(facts(split_facts(accuracy=0.6, baseline=0.8)))


def predictions(kind: str) -> tuple[pa.Table, list[str]]:
    tables: dict[str, tuple[dict[str, Any], list[str]]] = {
        "one label": (
            {"text": ["x", "y"], "label": ["a", "a"], "predicted": ["a", "b"], "probability/b": [0.1, 0.9]}, ["a", "b"],
        ),
        "several labels": ({"text": ["x", "y"], "labels": [["a"], []], "predicted": [["a"], ["b"]]}, ["a", "b", "none"]),
        "numbers": ({"text": ["x", "y"], "rating": [1.0, 2.0], "predicted_rating": [1.0, 4.0]}, []),
        "tags": (
            {
                "text": ["x", "y z"], "words": [["x"], ["y", "z"]],
                "tags": [["O"], ["B-PER", "O"]], "predicted": [["O"], ["O", "O"]],
            },
            ["PER", "none"],
        ),
        "written": ({"text": ["x", "y"], "target": ["a b", "c"], "predicted": ["a b", ""], "rougeL": [1.0, 0.0]}, []),
        "transcripts": (
            {"audio": ["x.wav", "y.wav"], "target": ["yes", "no one"], "predicted": ["yes", "no two"], "wer": [0.0, 0.5]}, [],
        ),
        "rankings": (
            {
                "query": ["x", "y"], "expected": [["a"], ["b"]], "found": [["a", "b"], ["c", "a", "b"]], "place": [1, 3],
            },
            [],
        ),
        "something new": ({"text": ["x", "y"], "written": ["u", "v"]}, []),
    }  # fmt: skip
    columns, labels = tables[kind]
    return pa.table({"row": [2, 3], **columns}), labels


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("one label", "90.0% sure"),
        ("several labels", "1 wrong"),
        ("numbers", "off by +2"),
        ("tags", "1 of 2 words"),
        ("written", "ROUGE-L 0.00"),
        ("transcripts", "word error rate 0.50"),
        ("rankings", "expected at place 3"),
    ],
)
def test_each_kind_of_task_has_its_mistakes(kind: str, said: str) -> None:
    table, labels = predictions(kind)
    found = mistakes.found(table, labels)
    worst = found.shown[0]
    assert (worst.row, worst.said) == (3, said)
    assert found.rows == 2


@pytest.mark.parametrize(
    "kind",
    ["one label", "several labels", "numbers", "tags", "written", "transcripts", "rankings", "something new"],
)
def test_each_kind_of_task_has_a_page(kind: str) -> None:
    table, labels = predictions(kind)
    found = split_facts(labels=labels, calibration=None, slices=[])
    drawn = page.render(facts(type(found)(**{**vars(found), "predictions": table})))
    ids = outline(drawn).ids
    assert ("confusion" in ids, "scatter" in ids, "calibration" in ids) == (kind == "one label", kind == "numbers", False)
    assert (outline(drawn).open, outline(drawn).wrong) == ([], [])
    assert ("(nothing)" in drawn) == (kind == "written"), "a prediction without a word"
    assert ("1. c\n2. a\n3. b" in drawn) == (kind == "rankings")


def test_ten_thousand_rows_make_a_page_of_less_than_five_megabytes() -> None:
    long = split_facts(rows=10_000, accuracy=0.5)
    table = long.predictions.set_column(1, "text", pa.array(["word " * 1000] * 10_000))
    drawn = page.render(facts(type(long)(**{**vars(long), "predictions": table})))
    assert len(drawn.encode()) < 1_000_000
    assert drawn.count("<tr data-actual=") == mistakes.MOST


def test_many_labels_are_cut_to_the_most_frequent() -> None:
    names = [f"label {number}" for number in range(300)]
    table = pa.table({"row": range(600), "text": ["x"] * 600, "label": names * 2, "predicted": names[1:] + names[:1] + names})
    found = page.confusion_table(table, names)
    assert found is not None
    assert (len(found["names"]), found["of"]) == (page.CLASSES, 300)


def test_axes_have_few_round_ticks_whatever_they_hold() -> None:
    for low, high in ((0, 1), (0.31, 0.34), (-5, 12345), (0, 1e-5), (7, 7)):
        axis = Axis.over("x", [low, high])
        assert 2 <= len(axis.ticks()) <= 8, (low, high)
        assert all(axis.low <= tick <= axis.high for tick in axis.ticks())
        assert max(len(axis.label(tick)) for tick in axis.ticks()) <= 7, "there is no room for more beside an axis"
    assert [Axis("x", 0, 1).label(value) for value in (0, 5e-5, 1.5e-4, 8e-4, 0.001, 0.25, 12345)] == [
        "0", "5e-5", "1.5e-4", "0.0008", "0.001", "0.25", "12,345",
    ]  # fmt: skip


def test_numbers_have_no_negative_zero_and_one_row_is_one() -> None:
    assert (words.number(-0.0004), words.number(-0.25), words.number(12345.6)) == ("0.000", "-0.250", "12,345.6")
    assert (page.rows(1), page.rows(1200)) == ("1 row", "1,200 rows")


def test_long_lines_are_thinned_and_keep_their_ends() -> None:
    points = [(float(number), 0.0) for number in range(5000)]
    found = charts.thinned(points)
    assert (len(found), found[0], found[-1]) == (charts.MOST_POINTS, points[0], points[-1])
    assert charts.smooth([(0.0, 1.0), (1.0, 3.0)]) == [(0.0, 1.0), (1.0, 3.0)]


def test_texts_stand_side_by_side_with_what_differs_marked() -> None:
    one, other = mistakes.side_by_side("stocks fall in March", "stocks rise in March again")
    assert one == (("stocks", True), ("fall", False), ("in March", True))
    assert other == (("stocks", True), ("rise", False), ("in March", True), ("again", False))
    table = pa.table({
        "row": [3, 4, 5], "text": ["a", "b", "c"], "target": ["x y", "q", "same"], "predicted": ["x z", "<b>", "same"],
        "rougeL": [0.5, 0.0, 1.0],
    })  # fmt: skip
    found = mistakes.found(table, [])
    assert (found.count, [each.row for each in found.shown]) == (2, [4, 3])
    assert found.shown[1].sides == ((("x", True), ("y", False)), (("x", True), ("z", False)))


def test_a_threshold_of_validation_stands_beside_what_it_gives_on_test(whole: str) -> None:
    table = whole[whole.index('id="thresholds"') :].partition("</table>")[0]
    found = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", table))
    assert "negative 70.0% 0.960 0.400" in found
    assert re.search(r"positive not reached", found)
    chances = facts().best.predictions
    pairs = zip(chances["label"].to_pylist(), chances["probability/negative"].to_pylist(), strict=True)
    taken = [label for label, chance in pairs if chance >= 0.7]
    assert f"{taken.count('negative') / len(taken):.3f}" in found


def test_confusions_have_their_surest_rows_as_examples() -> None:
    table = pa.table({
        "row": [1, 2, 3, 4, 5], "text": ["a", "b", "c", "d", "e"], "label": ["x", "x", "x", "y", "x"],
        "predicted": ["y", "y", "y", "x", "x"],
        "probability/y": [0.6, 0.9, 0.7, 0.1, 0.1], "probability/x": [0.4, 0.1, 0.3, 0.9, 0.9],
    })  # fmt: skip
    first, second = examples.confusions(table)
    assert (first["actual"], first["predicted"], first["count"], second["count"]) == ("x", "y", 3, 1)
    assert [each["text"] for each in first["examples"]] == ["b", "c", "a"]
    assert examples.confusions(table.drop_columns(["label"])) == []


def test_an_explanation_is_read_as_words_and_one_that_does_not_hold_is_marked(whole: str) -> None:
    assert 'title="+1.00"> gri</span><span class="for" style="--share: 0.50" title="+0.50">pping</span>' in whole
    assert "&lt;b&gt;" in whole
    assert whole.count('<p class="heat">') == 1
    assert whole.count('<p class="heat void">') == 1
    assert whole.count("Do not trust this explanation") == 1
    tokens = {"tokens": ["▁good", "ness", "▁me"], "scores": [0.0, 0.0, 0.0]}
    assert "".join(each["text"] for each in examples.pieces(tokens)) == " goodness me"
    assert examples.pieces(None) == []
