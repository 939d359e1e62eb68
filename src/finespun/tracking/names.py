"""Names that MLflow takes: letters, digits, `_ - . : /` and spaces, a normal path, at most 250 characters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

LONGEST = 250
REFUSED = re.compile(r"[^\w\-. :/]")


def legal(name: str) -> str:
    """Returns the name itself where MLflow takes it, else the nearest legal one with six digits of its digest.

    The digits keep apart names that would become the same (`C+` and `C#`), in whatever order they come.
    """
    parts = ["_" if part in {"", ".", ".."} else part for part in REFUSED.sub("_", name).split("/")]
    found = "/".join(parts)
    if found == name and len(name) <= LONGEST:
        return name
    mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"{found[: LONGEST - 7]}-{mark}"


def changed(names: Iterable[str]) -> dict[str, str]:
    """Returns what names are called in MLflow, for those that cannot keep their own."""
    return {name: legal(name) for name in names if legal(name) != name}
