"""Writes data/raw/voices.csv and data/raw/voices/: telephone prompts in five languages, each in a voice of its own.

`apt-get download asterisk-core-sounds-{en,es,fr,it,ru}-wav`, unpack each with `dpkg -x FILE.deb FOLDER` (or install them), then
`python data/sources/voices.py FOLDER`. What they are and whose: README.md here.
"""

import csv
import shutil
import sys
import wave
from pathlib import Path

RAW = Path(__file__).resolve().parents[1] / "raw"
SOUNDS = Path("usr/share/asterisk/sounds")
VOICES = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
SHORTEST = 1.0  # seconds; shorter ones are tones, letters and digits
PROMPTS = 140


def shared(sounds: Path) -> list[str]:
    """Returns prompts that all five have, long enough in each; ends with what to do where a package is missing."""
    missing = [name for name in VOICES.values() if not (sounds / name).is_dir()]
    if missing:
        sys.exit(f"voices.py: {sounds} has no {', '.join(missing)}: unpack asterisk-core-sounds-{{en,es,fr,it,ru}}-wav there")
    first = sounds / VOICES["en"]
    names = sorted(path.relative_to(first).as_posix() for path in first.rglob("*.wav"))
    return [name for name in names if all(_seconds(sounds / voice / name) >= SHORTEST for voice in VOICES.values())]


def _seconds(path: Path) -> float:
    if not path.is_file():
        return 0.0
    with wave.open(str(path)) as file:
        return file.getnframes() / file.getframerate()


def main(root: Path) -> None:
    """Copies prompts and lists them, evenly over the alphabet."""
    sounds, rows = root / SOUNDS, []
    names = shared(sounds)
    chosen = [names[place * len(names) // PROMPTS] for place in range(PROMPTS)]
    for voice, folder in VOICES.items():
        for name in chosen:
            copy = RAW / "voices" / voice / name.replace("/", "-")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sounds / folder / name, copy)
            rows.append({"audio": copy.relative_to(RAW).as_posix(), "prompt": name.removesuffix(".wav"), "voice": voice})
    with (RAW / "voices.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["audio", "prompt", "voice"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "/"))
