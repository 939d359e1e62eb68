"""Texts in other languages than those that are said are counted, by their script and by their letters."""

from __future__ import annotations

import random

import pytest

from finespun.tasks.answers.languages import mixed, remarks

ENGLISH = "the order was shipped today with their other things which have been thrown away this week"
GERMAN = "die Bestellung wurde heute mit ihren übrigen Sachen verschickt welche diese Woche nicht gebraucht sind"


def sentences(words: str, count: int = 200) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(words.split(), k=draw.randint(4, 9))) for _ in range(count)]


@pytest.mark.parametrize(
    ("language", "text", "fits"),
    [
        ("ru_RU", "Сохранить файл", True), ("ru_RU", "Save the file", False), ("__de__", "Datei größer", True),
        ("rus_Cyrl", "Save the file", False), ("srp_Latn", "Sačuvaj datoteku", True), ("srp_Cyrl", "Sačuvaj datoteku", False),
        ("ja_XX", "ファイルを保存", True), ("ja_XX", "保存文件", True), ("ko_KR", "파일 저장", True),
        ("ko_KR", "ファイルを保存", False),
        ("zh", "保存文件", True), ("el", "Αποθήκευση", True), ("ar_AR", "احفظ الملف", True), ("de", "Сохранить", False),
        ("ru", "OK 12", True), ("<|xx|>", "anything", True), (None, "anything", True),
    ],
)  # fmt: skip
def test_a_text_has_the_script_of_its_language(language: str | None, text: str, fits: bool) -> None:
    found = [*remarks([text], "targets", language)]
    assert bool(found) is not fits
    if found:
        assert found[0].startswith(f"1 of 1 targets (100.0%) are not in the script of {language}, such as {text!r}")


def test_rows_that_are_swapped_or_not_translated_are_counted() -> None:
    sources, targets = sentences(ENGLISH), sentences(GERMAN)
    assert not [*mixed(sources, targets)]
    for row in range(10):
        sources[row], targets[row] = targets[row], sources[row]
    targets[10:15] = sources[20:25]
    said = [*mixed(sources, targets)]
    assert [line.split(" read")[0] for line in said] == ["10 of 200 sources (5.0%)", "15 of 200 targets (7.5%)"]
    assert not [*mixed(sources[:40], targets[:40])], "too few to tell"
