"""Images as people and attackers bring them: a right image or an error with row and remedy, in memory that has a bound."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finespun.data.images import Places, UnreadableError, read
from finespun.errors import DataError
from finespun.tasks.inputs import image_encoder
from finespun.tasks.inputs.image_encoder import ImageEncoder
from helpers import ROOT
from tables import Prepared, prepared

COLUMNS = {"image": "image", "label": "label"}
GOOD = 40


def picture(number: int, *, height: int = 8, width: int = 8) -> Image.Image:
    """A picture of random colours."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with forty good pictures; another picture lies outside of it."""
    folder = tmp_path / "project" / "data"
    (folder / "im").mkdir(parents=True)
    for number in range(GOOD):
        picture(number).save(folder / "im" / f"{number}.png")
    (tmp_path / "elsewhere").mkdir()
    picture(99).save(tmp_path / "elsewhere" / "o.png")
    return folder


def made(data: Path, tiny_net: Path, name: str, **settings: object) -> Prepared:
    """What `prepare` makes of the good pictures and one row more."""
    rows = [(f"im/{number}.png", "ab"[number % 2]) for number in range(GOOD)] + [(name, "a")]
    content = "image,label\n" + "".join(f'"{image}",{label}\n' for image, label in rows)
    return prepared(
        data.parent, tiny_net, content, task="image_classification", name="images.csv", columns=COLUMNS, **settings
    )  # fmt: skip


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG whose pixels are ten million zeros, whatever its header says."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 10_000_000, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def at(make: Callable[[Path], object], name: str = "im/odd.png") -> Callable[[Path], str]:
    """Makes a file of the data folder and returns its name."""

    def go(data: Path) -> str:
        make(data / name)
        return name

    return go


def writes(content: bytes, name: str = "im/odd.png") -> Callable[[Path], str]:
    return at(lambda path: path.write_bytes(content), name)


def encoded(image: Image.Image) -> bytes:
    """The bytes of a PNG."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


WHOLE = encoded(picture(5, height=64, width=64))
TEXT = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"A" * 200_000_000, 9))
BAD: dict[str, tuple[Callable[[Path], str], str]] = {
    "bomb": (writes(png(60_000, 60_000)), "is too large to be decoded safely"),
    "large": (writes(png(9_000, 9_000)), "is 9000 x 9000 pixels, more than 50 million"),
    "bomb of text": (writes(png(8, 8, TEXT)), "is damaged"),
    "no bytes": (writes(b""), "is empty (0 bytes)"),
    "no image": (writes(b"<html>404</html>"), "is no image of a known kind"),
    "EPS": (writes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(touch PWNED) pop\n", "im/0.eps"), "is no image of a known"),
    "HEIC": (writes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "im/0.heic"), "convert it to PNG or JPEG"),
    "cut short": (writes(WHOLE[: len(WHOLE) // 2]), "is damaged"),
    "pipe": (at(os.mkfifo), "is a device or a pipe, not a file"),
    "broken link": (at(lambda path: path.symlink_to("nowhere.png")), "is a link that leads nowhere"),
    "link to itself": (at(lambda path: path.symlink_to("odd.png")), "is a link that leads nowhere"),
    "folder": (at(os.mkdir), "is a folder; name one image"),
    "nothing": (lambda _: "", "is empty; write the path"),
    "not there": (lambda _: "im/404.png", "is not there (looked in"),
    "long name": (lambda _: "x" * 300, "is no path that can be opened (File name too long)"),
    "unknown user": (lambda _: "~nobody-of-this-name/a.png", "is no path that can be opened"),
    "endless device": (at(lambda path: path.symlink_to("/dev/zero")), "lies outside"),
    "a file of the system": (lambda _: "/etc/passwd", "lies outside"),
    "link to the system": (at(lambda path: path.symlink_to("/etc/passwd")), "lies outside"),
    "link to a folder outside": (at(lambda path: path.parent.symlink_to("/etc"), "im/out/passwd"), "lies outside"),
    "dots": (lambda _: "../../elsewhere/o.png", "lies outside"),
    "dots within": (lambda _: "im/../../../elsewhere/o.png", "lies outside"),
    "a file of the project": (at(lambda path: path.write_bytes(WHOLE), "../secret.png"), "lies outside"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_row_without_an_image_is_reported_and_can_be_dropped(data: Path, tiny_net: Path, kind: str) -> None:
    make, message = BAD[kind]
    name = make(data)
    with pytest.raises(DataError) as caught:
        made(data, tiny_net, name)
    assert f"data/images.csv:{GOOD + 2}: image " in str(caught.value)
    assert message in str(caught.value)
    found = made(data, tiny_net, name, checks={"bad_image": "drop"})
    assert len(found.rows()) == GOOD, "the good rows are there"


@pytest.mark.parametrize("name", ["../../elsewhere/o.png", "ABSOLUTE", "im/link.png"])
def test_what_lies_outside_the_data_is_read_if_that_is_allowed(data: Path, tiny_net: Path, name: str) -> None:
    outside = data.parents[1] / "elsewhere" / "o.png"
    (data / "im" / "link.png").symlink_to(outside)
    name = str(outside) if name == "ABSOLUTE" else name
    with pytest.raises(
        DataError, match="lies outside .*data.allow_outside .* is not set; copy it there, or set that if you tr"
    ):
        made(data, tiny_net, name)
    assert len(made(data, tiny_net, name, allow_outside=True).rows()) == GOOD + 1
    picture(99).save(data / "im" / "copied.png")
    assert len(made(data, tiny_net, "im/copied.png").rows()) == GOOD + 1


@pytest.mark.parametrize("place", ["data/im/copied.png", "data/raw/a.png", ".dvc/cache/a.png"])
def test_the_projects_data_and_dvcs_links_are_inside(data: Path, tiny_net: Path, place: str) -> None:
    path = data.parent / place
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(99).save(path)
    (data / "im" / "link.png").symlink_to(path)
    assert len(made(data, tiny_net, "im/link.png").rows()) == GOOD + 1
    assert len(made(data, tiny_net, "data/im/link.png").rows()) == GOOD + 1, "relative to the project"


def test_a_folder_of_images_is_as_careful(data: Path, tiny_net: Path) -> None:
    for label in "ab":
        (data / "raw" / label).mkdir(parents=True)
    for number in range(GOOD):
        (data / "im" / f"{number}.png").rename(data / "raw" / "ab"[number % 2] / f"{number}.png")
    os.mkfifo(data / "raw" / "a" / "pipe.png")
    (data / "raw" / "b" / "link.png").symlink_to("/etc/passwd")
    settings = {"path": "data/raw", "columns": {"image": "file", "label": "folder"}}
    with pytest.raises(DataError) as caught:
        prepared(data.parent, tiny_net, "", task="image_classification", **settings)
    assert "file 'a/pipe.png': is a device or a pipe" in str(caught.value)
    assert "file 'b/link.png': lies outside" in str(caught.value)
    found = prepared(
        data.parent, tiny_net, "", task="image_classification", **settings, checks={"bad_image": "drop"}
    )  # fmt: skip
    assert len(found.rows()) == GOOD


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _sixteen(path: Path, image: Image.Image) -> None:
    rows = np.asarray(image).astype(">u2") * 257
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", image.width, image.height, 16, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(lines))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


RIGHT: dict[str, Callable[[Path, Image.Image], object]] = {
    "wrong extension": lambda path, image: image.save(path, "BMP"),
    "palette": lambda path, image: image.quantize(256).save(path),
    "16 bits a channel": _sixteen,
    "EXIF": lambda path, image: image.rotate(90, expand=True).save(path, exif=_turned()),
    "APNG": lambda path, image: image.save(path, save_all=True, append_images=[picture(7)]),
    "animated WebP": lambda path, image: image.save(path, "WEBP", save_all=True, append_images=[picture(7)], lossless=True),
    "several pages": lambda path, image: image.save(path, "TIFF", save_all=True, append_images=[picture(7)]),
    "interlaced, with a comment": lambda path, image: image.save(path, comment="=1+1", interlace=True),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_an_odd_file_is_the_right_image(tmp_path: Path, kind: str) -> None:
    image = picture(3)
    RIGHT[kind](tmp_path / "odd.png", image)
    found = read("odd.png", Places((tmp_path,), (tmp_path,)), max_pixels=1000).image
    assert np.abs(np.asarray(found).astype(int) - np.asarray(image)).max() <= (40 if kind == "palette" else 0)


@pytest.mark.parametrize("name", ["\0.png", "a\0", "\ud800.png"])
def test_what_no_file_can_be_called_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableError, match="is no path that can be opened"):
        read(name, Places((tmp_path,), (tmp_path,)), max_pixels=1000)


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(UnreadableError, match="has more than 64 MB, as no image of task.max_megapixels needs"):
        read("sparse.png", Places((tmp_path,), (tmp_path,)), max_pixels=1000)


RESIZING = {
    "shorter side": {"resize": 24, "crop": (20, 20)},
    "both sides": {"resize": (20, 20), "crop": None},
    "larger than the image": {"resize": 8, "crop": (20, 24)},
}


@pytest.mark.parametrize("size", [(400, 4), (4, 400), (1, 300), (300, 1), (33, 1500), (1500, 33)])
@pytest.mark.parametrize("how", RESIZING)
def test_a_part_of_a_thin_image_is_that_of_the_whole(
    how: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    down, across = np.mgrid[: size[1], : size[0]]
    waves = np.stack(
        [100 + 90 * np.sin(down / 9), 100 + 90 * np.cos(across / 7), 100 + 90 * np.sin((down + across) / 30)], axis=-1
    )
    image = Image.fromarray(waves.astype(np.uint8))
    for resample in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS):
        encoder = ImageEncoder(
            **RESIZING[how], resample=resample, table=np.zeros((256, 3), np.float32), mean=(0,), std=(1,), changes={}
        )  # fmt: skip
        monkeypatch.setattr(image_encoder, "WHOLE_PIXELS", 16_000_000)
        whole = encoder.pixels(image).astype(int)
        monkeypatch.setattr(image_encoder, "WHOLE_PIXELS", 0)
        part = encoder.pixels(image).astype(int)
        assert np.abs(whole - part).max() <= 4, "another order of rounding, no more"
        assert np.abs(whole - part).mean() < 0.6


MEMORY = """
import json, resource, sys
from pathlib import Path
from PIL import Image
from finespun.data.images import Places, read, UnreadableError
from finespun.tasks.inputs.image_encoder import ImageEncoder
import numpy as np
here = Path(sys.argv[1]); places = Places((here,), (here,))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
found = {"before": peak()}
for name in sys.argv[2:]:
    try: image = read(name, places, max_pixels=50_000_000)[0]
    except UnreadableError: image = Image.new("RGB", (1, 1))
    for resize, crop in ((256, (224, 224)), ((224, 224), None)):
        encoder = ImageEncoder(resize=resize, crop=crop, resample=3, table=None, mean=(), std=(), changes={})
        assert encoder.pixels(image).shape == (224, 224, 3)
    found[name] = peak()
print(json.dumps(found))
"""


def test_no_image_takes_memory_out_of_proportion(tmp_path: Path) -> None:
    """A picture of 20 million pixels takes 20 times 4 bytes, some times over; none of these has a tenth of that to show."""
    for name, width, height in (("wide", 4000, 1), ("high", 1, 4000), ("band", 90_000, 40), ("long", 1, 3_000_000)):
        Image.new("RGB", (width, height), "red").save(tmp_path / f"{name}.png")
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000))
    (tmp_path / "text.png").write_bytes(png(8, 8, TEXT))
    names = sorted(path.name for path in tmp_path.iterdir())
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), *names], env=env, capture_output=True, text=True, check=True
    )
    peaks = json.loads(done.stdout)
    assert peaks.keys() == {"before", *names}
    assert max(peaks.values()) - peaks["before"] < 160, peaks
