"""Images: every odd file becomes upright RGB, or a reason that names the next step; nothing large is decoded."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finespun.data.images import Places, UnreadableError, inline, read
from finespun.data.sources import image_folder
from finespun.data.sources.tables import read as read_rows
from finespun.errors import DataError

GREY = (np.arange(48).reshape(6, 8) * 5).astype(np.uint8)
COLOUR = np.stack([GREY, GREY.T.copy().reshape(6, 8), 255 - GREY], axis=-1)


def opened(path: Path | str) -> tuple[np.ndarray[Any, Any], bool]:
    image, _, _, animated = read(str(path), Places((Path(),), (Path("/"),)), max_pixels=1_000_000)
    assert image.mode == "RGB"
    return np.asarray(image), animated


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(path: Path, side: int) -> Path:
    """A black PNG of side x side that takes almost no bytes."""
    rows = zlib.compress(b"\0" * ((side + 7) // 8 + 1) * side, 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("bits.png", Image.fromarray(GREY > 100)),
        ("grey.png", Image.fromarray(GREY)),
        ("grey.JPG", Image.fromarray(GREY)),
        ("sixteen.png", Image.fromarray(GREY.astype(np.uint16) * 257)),
        ("sixteen.tif", Image.fromarray(GREY.astype(np.uint16) * 257)),
        ("sixteen.pgm", Image.fromarray(GREY.astype(np.uint16) * 257)),
        ("palette.gif", Image.fromarray(COLOUR).convert("P")),
        ("inks.jpg", Image.fromarray(COLOUR).convert("CMYK")),
        ("colour.webp", Image.fromarray(COLOUR)),
        ("café \N{GRINNING FACE} 1.bmp", Image.fromarray(COLOUR)),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_every_mode_becomes_rgb(tmp_path: Path, name: str, image: Image.Image) -> None:
    image.save(tmp_path / name)
    pixels, animated = opened(tmp_path / name)
    assert pixels.shape == (6, 8, 3)
    assert not animated
    if name.startswith(("grey.png", "sixteen")):  # 16 bits are brought to 8, not cut at 255
        assert np.array_equal(pixels[..., 0], GREY)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    alpha = np.where(GREY > 100, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([COLOUR, alpha])).save(tmp_path / "rgba.png")
    Image.fromarray(np.dstack([GREY, alpha])).save(tmp_path / "la.png")
    palette = Image.fromarray(GREY).convert("P")
    palette.save(tmp_path / "p.png", transparency=0)
    for name in ("rgba.png", "la.png"):
        pixels, _ = opened(tmp_path / name)
        assert (pixels[alpha == 0] == 255).all()
        assert np.array_equal(pixels[alpha == 255], (COLOUR if "rgba" in name else np.dstack([GREY] * 3))[alpha == 255])
    assert (opened(tmp_path / "p.png")[0][GREY == 0] == 255).all()


def test_a_turned_photograph_is_set_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to look at it
    Image.fromarray(COLOUR).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(opened(tmp_path / "turned.png")[0], np.rot90(COLOUR, -1))


def test_the_first_frame_of_several_is_used_and_said(tmp_path: Path) -> None:
    frames = [Image.fromarray(COLOUR).convert("P"), Image.fromarray(255 - COLOUR).convert("P")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    pixels, animated = opened(tmp_path / "moving.gif")
    assert animated
    assert np.array_equal(pixels, np.asarray(frames[0].convert("RGB")))
    photograph = Image.fromarray(COLOUR)  # as telephones save it: with a small copy of itself behind it
    photograph.save(tmp_path / "photograph.jpg", "MPO", save_all=True, append_images=[photograph.resize((4, 3))])
    assert not opened(tmp_path / "photograph.jpg")[1]


def test_an_image_may_be_text(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    text = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    assert np.array_equal(opened(f"data:image/png;base64,{text}")[0], COLOUR)
    with pytest.raises(UnreadableError, match="is not base64"):
        opened("data:image/png;base64,!!!")


def broken(folder: Path, kind: str) -> Path:
    """A path to something that is no image."""
    Image.fromarray(COLOUR).resize((200, 200)).save(folder / "whole.png")
    Image.fromarray(COLOUR).resize((200, 200)).save(folder / "whole.jpg")
    path = folder / f"{kind}.png"
    whole = {ending: (folder / f"whole.{ending}").read_bytes() for ending in ("png", "jpg")}
    bytes_of = {
        "truncated-png": whole["png"][: len(whole["png"]) // 2], "truncated-jpg": whole["jpg"][: len(whole["jpg"]) // 2],
        "empty": b"", "text": b"my holiday\n", "header": b"\x89PNG\r\n\x1a\n" + b"\0" * 30,
        "script": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
    }  # fmt: skip
    makers: dict[str, Any] = {
        "folder": path.mkdir, "link": lambda: path.symlink_to(folder / "nothing.png"), "bomb": lambda: bomb(path, 9400),
        "large": lambda: bomb(path, 40_000), "missing": lambda: None,
        "floats": lambda: Image.fromarray(GREY.astype(np.float32)).save(path, "TIFF"),
    }  # fmt: skip
    makers.get(kind, lambda: path.write_bytes(bytes_of[kind]))()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated-png", "is damaged ("),
        ("truncated-jpg", "is damaged (image file is truncated"),
        ("empty", "is empty (0 bytes); fetch it again, or set data.checks.bad_image: drop"),
        ("text", "is no image of a known kind (.avif, .bmp,"),
        ("header", "data.checks.bad_image: drop"),
        ("script", "is no image of a known kind"),
        ("folder", "is a folder; name one image"),
        ("link", "is a link that leads nowhere"),
        ("missing", "is not there (looked in"),
        ("bomb", "is 9400 x 9400 pixels, more than 1 million; make it smaller, or raise task.max_megapixels"),
        ("large", "is too large to be decoded safely"),
        ("floats", "holds numbers of mode F, which have no agreed white"),
    ],
)
def test_what_is_no_image_says_why_and_what_to_do(tmp_path: Path, kind: str, message: str) -> None:
    path = broken(tmp_path, kind)
    with pytest.raises(UnreadableError) as caught:
        opened(path)
    assert message in str(caught.value)


def test_paths_are_looked_for_beside_the_table_and_then_in_the_project(tmp_path: Path) -> None:
    for folder, value in (("table", 1), ("project", 2)):
        (tmp_path / folder).mkdir()
        Image.new("L", (1, 1), value).save(tmp_path / folder / "both.png")
    Image.new("L", (1, 1), 3).save(tmp_path / "project" / "one.png")
    folders = (tmp_path / "table", tmp_path / "project")
    found = [read(name, Places(folders, folders), max_pixels=9)[0].getpixel((0, 0)) for name in ("both.png", "one.png")]
    assert found == [(1, 1, 1), (3, 3, 3)]


def test_a_folder_gives_a_row_a_file_with_the_sub_folder_as_its_label(tmp_path: Path) -> None:
    for name in (
        "cat/b.png",
        "cat/A.PNG",
        "cat/deep/c.png",
        "dog/notes.txt",
        "dog/.hidden.png",
        ".git/x.png",
        "été/\u4e2d.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to(tmp_path / "dog")  # another label for the same files: seen once only
    (tmp_path / "cat" / "back").symlink_to(tmp_path)  # leads back
    rows = [(line.number, line.row["file"], line.row["folder"]) for line in read_rows(tmp_path)]
    assert rows == [
        (1, "cat/A.PNG", "cat"), (2, "cat/b.png", "cat"), (3, "cat/deep/c.png", "cat"), (4, "dog/notes.txt", "dog"),
        (5, "été/\u4e2d.png", "été"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no image (.avif, .bmp,"),
        (["cat/notes.pdf"], "holds no image"),
        (["a.png", "cat/b.png"], "a.png lies in no sub-folder, whose name would be its label"),
        (["train/cat/a.png", "test/cat/b.png"], "its sub-folders test, train are splits, not labels"),
    ],
)
def test_a_folder_that_is_no_image_folder_says_why(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError) as caught:
        list(read_rows(tmp_path))
    assert message in str(caught.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file,label\n")
    with pytest.raises(DataError, match=r"is a file; data.format: images is a folder of images"):
        list(read_rows(tmp_path / "a.csv", file_format="images"))
    assert list(image_folder.files(tmp_path)) == [tmp_path / "a.csv"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_bytes_and_base64_alone_are_images_too(tmp_path: Path, kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(file, kind)
    (tmp_path / "a").write_bytes(file.getvalue())
    places = Places((tmp_path,), (tmp_path,))
    plain = read("a", places, max_pixels=1000)[0]
    for given in (file.getvalue(), bytearray(file.getvalue()), base64.b64encode(file.getvalue()).decode()):
        assert read(inline(given), places, max_pixels=1000)[0].tobytes() == plain.tobytes()
    for other in ("a.png", "/9j/a.png", "data:image/png;base64,AAAA", None, 3):
        assert inline(other) == other
