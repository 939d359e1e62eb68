"""Pastes Tux Paint's photographed cut-outs on crops of scikit-learn's two photographs: cut_outs/SPLIT/NUMBER.jpg, masks, boxes.

    python data/sources/cut_outs.py [FOLDER]

FOLDER holds the stamps of Debian's package tuxpaint-stamps-default (`apt install` puts them into /usr/share/tuxpaint/stamps;
`apt download` and `dpkg -x` unpack them anywhere). Writes 800 images of 128 x 128 pixels for training, 100 for validation and
200 for the test, each with one to four cut-outs that do not touch: cut_outs.csv (file, mask, split) for segmentation, where a
mask has a grey value a class, and COCO's JSON a split, with boxes and run lengths, for detection. Splits share no cut-out: 25 %
of those of each class are for the test and 10 % for validation, which take the other half of the photographs, too.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

HERE = Path(__file__).resolve().parents[1] / "raw" / "cut_outs"
STAMPS = Path("/usr/share/tuxpaint/stamps")
CLASSES = {"food": "food", "animal": "animals", "vehicle": "vehicles", "flower": "plants/flowers"}  # class -> folder of stamps
DRAWN = {"cartoon", "dinosaur", "toys", "plastic"}  # folders of what is no photograph
COUNTS = {"train": 800, "val": 100, "test": 200}
SHARES = {"test": 0.25, "val": 0.1}  # of the cut-outs of a class; the others are trained on
SIDE = 128
MOST = 4  # cut-outs of an image
SIZES = (56, 100)  # pixels of the longer side of a cut-out, from and to
SOLID = 128  # alpha from which a pixel belongs to a cut-out

CutOuts = dict[str, list[Image.Image]]  # class -> images with transparency


def cut_outs(stamps: Path, random: np.random.Generator) -> dict[str, CutOuts]:
    """Returns the cut-outs of each split, by class."""
    found: dict[str, CutOuts] = {split: {} for split in COUNTS}
    for name, folder in CLASSES.items():
        files = [path for path in sorted((stamps / folder).rglob("*.png")) if not DRAWN & {*path.parts}]
        images = [image for image in map(opened, files) if image is not None]
        if len(images) < 10:
            remedy = "install tuxpaint-stamps-default, or name its folder of stamps"
            sys.exit(f"{stamps / folder}: holds {len(images)} cut-outs; {remedy}")
        images = [images[place] for place in random.permutation(len(images))]
        for split, share in SHARES.items():
            count = max(1, round(share * len(images)))
            found[split][name], images = images[:count], images[count:]
        found["train"][name] = images
    return found


def opened(path: Path) -> Image.Image | None:
    """Returns an image cut to what is not transparent, or None where nothing is transparent."""
    image = Image.open(path).convert("RGBA")
    alpha = image.getchannel("A").point(lambda value: 255 * (value >= SOLID))
    box = alpha.getbbox()
    return image.crop(box) if box and np.asarray(alpha).mean() < 250 else None


def scene(
    photograph: np.ndarray, given: CutOuts, random: np.random.Generator
) -> tuple[Image.Image, np.ndarray, list[tuple[str, np.ndarray]]]:
    """Returns an image, the class of each of its pixels, and for each cut-out its class and the pixels that it covers."""
    y, x = (int(random.integers(0, length - SIDE + 1)) for length in photograph.shape[:2])
    image = Image.fromarray(photograph[y : y + SIDE, x : x + SIDE])
    mask, placed = np.zeros((SIDE, SIDE), dtype=np.uint8), []
    for _ in range(int(random.integers(1, MOST + 1))):
        number = int(random.integers(len(CLASSES)))
        name = [*CLASSES][number]
        cut_out = given[name][random.integers(len(given[name]))]
        share = int(random.integers(SIZES[0], SIZES[1] + 1)) / max(cut_out.size)
        cut_out = cut_out.resize([max(2, round(share * each)) for each in cut_out.size], Image.Resampling.LANCZOS)
        left, top = (int(random.integers(0, SIDE - each + 1)) for each in cut_out.size)
        if mask[top : top + cut_out.height, left : left + cut_out.width].any():
            continue
        covered = np.zeros((SIDE, SIDE), dtype=bool)
        covered[top : top + cut_out.height, left : left + cut_out.width] = np.asarray(cut_out.getchannel("A")) >= SOLID
        if not covered.any():
            continue
        image.paste(cut_out, (left, top), cut_out)
        mask[covered] = number + 1
        placed.append((name, covered))
    return image, mask, placed


def annotation(name: str, covered: np.ndarray) -> dict[str, object]:
    """Returns COCO's annotation of the pixels of a cut-out: its box, and run lengths, column by column."""
    rows, columns = (np.nonzero(covered.any(axis=axis))[0] for axis in (1, 0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
    flat = covered.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    runs = np.diff([0, *ends, flat.size]).tolist()
    segmentation = {"size": [SIDE, SIDE], "counts": [0, *runs] if flat[0] else runs}
    return {
        "category_id": [*CLASSES].index(name) + 1, "bbox": box, "area": int(covered.sum()), "segmentation": segmentation,
        "iscrowd": 0,
    }  # fmt: skip


def write(split: str, photographs: list[np.ndarray], given: CutOuts, random: np.random.Generator) -> list[dict[str, str]]:
    """Writes the images, masks and annotations of a split; returns its rows of cut_outs.csv."""
    for folder in (HERE / split, HERE / "masks" / split):
        folder.mkdir(parents=True, exist_ok=True)
    rows, images, annotations = [], [], []
    for number in range(COUNTS[split]):
        image, mask, placed = scene(photographs[number % len(photographs)], given, random)
        name = f"{split}/{number:04d}.jpg"
        image.save(HERE / name, quality=95)
        Image.fromarray(mask).save(HERE / "masks" / split / f"{number:04d}.png")
        rows.append({"file": name, "mask": f"masks/{split}/{number:04d}.png", "split": split})
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        for one in placed:
            annotations.append({"id": len(annotations) + 1, "image_id": number} | annotation(*one))
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    said = {"images": images, "annotations": annotations, "categories": categories}
    (HERE / f"{split}.json").write_text(json.dumps(said), encoding="utf-8")
    return rows


def main() -> None:
    """Writes all three splits."""
    stamps = Path(sys.argv[1]) if len(sys.argv) > 1 else STAMPS
    random = np.random.default_rng(0)
    given = cut_outs(stamps, random)
    photographs = load_sample_images().images
    width = photographs[0].shape[1] // 2
    rows = []
    for split in COUNTS:
        halves = [each[:, :width] if split == "train" else each[:, width:] for each in photographs]
        rows += write(split, halves, given[split], random)
    with (HERE / "cut_outs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["file", "mask", "split"])
        writer.writeheader()
        writer.writerows(rows)


main()
