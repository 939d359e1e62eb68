"""DVC's run cache: `dvc repro` takes from it what a stage once made of the same inputs, and does not run the stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Digests = dict[str, str]  # MD5 by path, as `dvc.lock` has them; of a folder it ends in `.dir`
NOT_INPUTS = ["size", "nfiles"]  # of files, which DVC leaves out of the key


@dataclass(frozen=True, kw_only=True)
class RunCache:
    """Where DVC keeps which results there were (`runs/`), and the files themselves."""

    runs: Path
    files: Path

    def results(self, locked: Mapping[str, Any], params: Mapping[str, Any], deps: Digests) -> Digests | None:
        """Returns the digests of what a stage made of these inputs; None where that is not known, or no longer kept.

        Args:
            locked: the stage in `dvc.lock`.
            params: its settings now, by file and section.
            deps: digests of the inputs that are not those of `dvc.lock` any more.
        """
        from dvc.utils import dict_sha256  # noqa: PLC0415  (part of the 0.6 s that only `finespun plan` needs)

        inputs = [{**dep, "md5": deps.get(dep["path"], dep.get("md5"))} for dep in locked.get("deps", [])]
        outs = [out["path"] for out in locked.get("outs", [])]
        entry = {**locked, "deps": inputs, "outs": outs} | ({"params": params} if params else {})
        key = dict_sha256(entry, exclude=NOT_INPUTS)
        kept = sorted((self.runs / key[:2] / key).glob("*"), key=lambda path: path.stat().st_mtime)
        try:
            made = yaml.safe_load(kept[-1].read_text(encoding="utf-8"))["outs"] if kept else []
            found = {str(out["path"]): str(out["md5"]) for out in made}
            return found if found and all(map(self._is_kept, found.values())) else None
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):  # damaged: DVC runs the stage then, too
            return None

    def inside(self, folder: str, digest: str) -> Digests:
        """Returns the digests of the files in a folder, by their whole paths."""
        if not digest.endswith(".dir"):
            return {}
        listed = json.loads(self._file(digest).read_text(encoding="utf-8"))
        return {f"{folder}/{each['relpath']}": str(each["md5"]) for each in listed}

    def _is_kept(self, digest: str) -> bool:
        return self._file(digest).is_file() and all(
            self._file(each).is_file() for each in self.inside("", digest).values()
        )  # fmt: skip

    def _file(self, digest: str) -> Path:
        return self.files / digest[:2] / digest[2:]
