"""Lists, for each Python that set-up allows, the locked packages that have no wheel for it; ends with 1 if there is any.

Reads the lock files that are named on the command line, and asks the index that pip is configured with. A package that comes
as source alone is listed as such: pip builds it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

PYTHONS = [(3, 11), (3, 12), (3, 13), (3, 14)]
GLIBC = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
MACOS = [f"macosx_{major}_0_{kind}" for major in range(15, 10, -1) for kind in ("arm64", "universal2")]
MACOS += [f"macosx_10_{minor}_universal2" for minor in range(16, 8, -1)]
SYSTEMS = {"Linux": ("linux", GLIBC), "macOS": ("darwin", MACOS)}
HEADERS = {"Accept": "application/vnd.pypi.simple.v1+json"}


def requirements(lock: Path) -> Iterator[Requirement]:
    """Yields the pinned requirements of a lock file."""
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            yield Requirement(line.rstrip("\\ "))


def files_of(name: str, index: str) -> list[str]:
    """Returns the names of a package's files on the index."""
    request = urllib.request.Request(f"{index.rstrip('/')}/{name}/", headers=HEADERS)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [file["filename"] for file in json.load(answer)["files"]]


def tags_of(python: tuple[int, int], platforms: list[str]) -> set[Tag]:
    """Returns the tags of wheels that a CPython on these platforms takes."""
    return {*cpython_tags(python, platforms=platforms), *compatible_tags(python, f"cp{python[0]}{python[1]}", platforms)}


def has_wheel(requirement: Requirement, files: list[str], tags: set[Tag] | None) -> bool:
    """Whether one of the files is a wheel of the pinned version, with one of the tags or (None) with any."""
    for file in files:
        try:
            _, version, _, offered = parse_wheel_filename(file)
        except InvalidWheelFilename:
            continue
        if requirement.specifier.contains(version, prereleases=True) and (tags is None or offered & tags):
            return True
    return False


def place_of(python: tuple[int, int], platform: str) -> dict[str, str]:
    """Returns what environment markers say of a Python on Linux x86-64 or on macOS arm64."""
    version, linux = f"{python[0]}.{python[1]}", platform == "linux"
    return {
        "python_version": version, "python_full_version": f"{version}.0", "sys_platform": platform,
        "platform_system": "Linux" if linux else "Darwin", "platform_machine": "x86_64" if linux else "arm64",
    }  # fmt: skip


def main(locks: list[str]) -> int:
    """Prints what is missing; returns 1 if anything is."""
    asked = subprocess.run(["pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False)
    index = asked.stdout.strip() or "https://pypi.org/simple"
    pinned = [each for lock in locks for each in requirements(Path(lock))]
    with ThreadPoolExecutor(8) as pool:
        files = dict(zip(pinned, pool.map(lambda each: files_of(each.name, index), pinned), strict=True))
    missing = False
    for python in PYTHONS:
        for system, (platform, platforms) in SYSTEMS.items():
            tags, place = tags_of(python, platforms), place_of(python, platform)
            wanted = [each for each in pinned if not each.marker or each.marker.evaluate(place)]
            without = [each for each in wanted if not has_wheel(each, files[each], tags)]
            source = [each.name for each in without if not has_wheel(each, files[each], None)]
            absent = [each.name for each in without if each.name not in source]
            missing |= bool(absent)
            print(
                f"Python {python[0]}.{python[1]} on {system}: {len(wanted)} packages; no wheel: {', '.join(absent) or 'none'};"
                f" built from source: {', '.join(source) or 'none'}"
            )
    return int(missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
