"""CoNLL files as people have them: columns, comments, documents, CoNLL-U; an uneven line is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finespun.data.sources.tables import format_of, read
from finespun.data.writing import write
from finespun.errors import DataError
from helpers import ROOT

CONLL_U = """# newdoc id = d1
# sent_id = 1
# text = Vámonos al mar con diez columnas en total
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\tse\t_\t_\t_\t_\t_\t_\t_\t_
3\t10\u00a0000\t10\u00a0000\tNUM\t_\t_\t1\tobl\t_\t_

"""


def rows(tmp_path: Path, text: str, name: str = "a.conll") -> list[tuple[int, dict[str, Any]]]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return [(line.number, line.row) for line in read(tmp_path / name)]


@pytest.mark.parametrize("gap", [" ", "\t", "  \t".replace(" ", "")])
def test_columns_are_named_by_position_and_sentences_by_their_first_line(tmp_path: Path, gap: str) -> None:
    text = "EU NNP B-ORG\nrejects VBZ O\n\n\nPeter NNP B-PER".replace(" ", gap)
    assert rows(tmp_path, text) == [
        (1, {"1": ["EU", "rejects"], "2": ["NNP", "VBZ"], "3": ["B-ORG", "O"], "document": "0"}),
        (5, {"1": ["Peter"], "2": ["NNP"], "3": ["B-PER"], "document": "0"}),
    ]


def test_several_spaces_windows_line_ends_and_blanks_of_spaces(tmp_path: Path) -> None:
    assert [row["2"] for _, row in rows(tmp_path, "EU    B-ORG \r\nsaid  O\r\n  \r\nso    O\r\n")] == [["B-ORG", "O"], ["O"]]


def test_documents_are_counted_and_their_marks_are_no_words(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- O\n\nEU NNP O\n-DOCSTART- -X- O\n\na b c\n\nd e f\n"
    assert [(row["1"], row["document"]) for _, row in rows(tmp_path, text)] == [(["EU"], "1"), (["a"], "2"), (["d"], "2")]


def test_comments_are_no_words_and_hashtags_are(tmp_path: Path) -> None:
    text = "# id = 7\n# a comment\n#edchat O\n# O\nnow O\n\n# two words more\n#win O\n\n# O\n"
    assert [row["1"] for _, row in rows(tmp_path, "# id = 1\na b c d\n\n# id = 2\ne f g h\n")] == [["a"], ["e"]]
    assert [row["1"] for _, row in rows(tmp_path, "a\tO\n\n# b\nNew York\tO\n")] == [["a"], ["New York"]]
    assert [row["1"] for _, row in rows(tmp_path, text)] == [["#edchat", "#", "now"], ["#win"], ["#"]]


def test_conll_u_has_names_and_multiword_tokens_and_empty_nodes_are_skipped(tmp_path: Path) -> None:
    [(number, row)] = rows(tmp_path, CONLL_U, "a.conllu")
    assert number == 5
    assert row["form"] == ["Vamos", "nos", "10\u00a0000"]
    assert row["upos"] == ["VERB", "PRON", "NUM"]
    assert row["document"] == "1"


def test_a_file_may_name_its_columns(tmp_path: Path) -> None:
    text = "# global.columns = ID FORM NER\n1\tEU\tB-ORG\n2-3\tx\ty\n2\tsaid\tO\n"
    assert rows(tmp_path, text)[0][1] == {"id": ["1", "2"], "form": ["EU", "said"], "ner": ["B-ORG", "O"], "document": "0"}
    assert [row["1"] for _, row in rows(tmp_path, "1-2 O\n3.5 O\n")] == [["1-2", "3.5"]], "words, where there are no ids"


def test_an_uneven_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.conll:2: has 1 columns, the lines before 2; put tabs or spaces between columns"):
        rows(tmp_path, "EU B-ORG\nrejects\n")
    with pytest.raises(DataError, match=r"a.conll:2: has 3 columns"):
        rows(tmp_path, "EU B-ORG\n# no comment\n")


def test_it_is_read_and_never_written(tmp_path: Path) -> None:
    assert format_of(Path("a.txt"), "conll") == format_of(Path("a.bio")) == "conll"
    with pytest.raises(DataError, match=r"the ending '.conll' is not one of .csv, .jsonl, .*; choose one of them"):
        write([{"a": 1}], tmp_path / "a.conll")
    assert not list(tmp_path.iterdir())


def test_the_sentences_of_these_tests_are_what_they_say() -> None:
    found = [line.row for line in read(ROOT / "tests" / "data" / "entities.conll")]
    assert len(found) == 171
    assert len({" ".join(row["1"]) for row in found}) == 171
    assert {tag for row in found for tag in row["2"]} == {
        "O",
        *(f"{p}-{t}" for p in "BI" for t in ("PER", "LOC", "ORG", "DATE")),
    }
    assert sum(set(row["2"]) == {"O"} for row in found) > 25
