"""Writes data/raw/prompts.csv and data/raw/prompts/: English telephone prompts and what is said in each.

`apt-get download asterisk-core-sounds-en-wav`, unpack it with `dpkg -x FILE.deb FOLDER` (or install it), then
`python data/sources/prompts.py FOLDER`. What they are and whose: README.md here.
"""

import csv
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOUNDS = Path("usr/share/asterisk/sounds/en_US_f_Allison")
TRANSCRIPTS = ROOT / "tests" / "data" / "asterisk_en.csv"


def main(root: Path) -> None:
    """Copies the prompts that have a transcript, and lists both."""
    sounds, raw = root / SOUNDS, ROOT / "data" / "raw"
    if not sounds.is_dir():
        sys.exit(f"prompts.py: {sounds} is not there: unpack asterisk-core-sounds-en-wav in {root}")
    with TRANSCRIPTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    (raw / "prompts").mkdir(parents=True, exist_ok=True)
    with (raw / "prompts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["audio", "transcript", "split"])
        for row in rows:
            name = f"{row['prompt']}.wav"
            shutil.copyfile(sounds / name, raw / "prompts" / name)
            writer.writerow([f"prompts/{name}", row["transcript"], row["split"]])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "/"))
