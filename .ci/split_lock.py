"""Splits a universal lock (standard input) in two: what every machine needs, and what torch's CUDA build adds on Linux.

`requirements.lock` serves torch's CPU build too, which needs no CUDA packages: so they have a file of their own.
"""

import re
import sys
from pathlib import Path

CUDA = re.compile(r"^(nvidia-|cuda-|triton)")

entries = re.split(r"\n(?=\S)", sys.stdin.read().strip())
assert any(CUDA.match(entry) for entry in entries), "no CUDA packages in the lock: was it resolved with --universal?"
Path("requirements.lock").write_text("\n".join(e for e in entries if not CUDA.match(e)) + "\n")
Path("requirements-cuda.lock").write_text("\n".join(e for e in entries if CUDA.match(e)) + "\n")
