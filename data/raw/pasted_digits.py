"""Pastes scikit-learn's handwritten digits on crops of its two photographs: pasted_digits/SPLIT/NUMBER.jpg and COCO's JSON.

Writes 1,600 images of 96 x 96 pixels for training, 200 for validation and 200 for the test, each with one to four digits that
do not touch. Those for training take the left half of the photographs and 80 % of the digits, the others the right half and
digits that training never sees, of which validation and test have different ones. The one category is `digit`.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

HERE = Path(__file__).resolve().parent / "pasted_digits"
COUNTS = {"train": 1600, "val": 200, "test": 200}
SIDE = 96
MOST = 4  # digits of an image
SIZES = (20, 36)  # pixels a side of a pasted digit, from and to
WHITE = 16  # the highest value of a pixel in the data
INK = 0.25  # of its darkest: from here on a pixel belongs to a digit's box

Edges = tuple[int, int, int, int]


def scene(photograph: np.ndarray, digits: np.ndarray, random: np.random.Generator) -> tuple[Image.Image, list[Edges]]:
    """Returns an image and the boxes of its digits: left, top, right, bottom."""
    y, x = (int(random.integers(0, length - SIDE + 1)) for length in photograph.shape[:2])
    pixels = photograph[y : y + SIDE, x : x + SIDE].astype(np.float64)
    boxes: list[Edges] = []
    for _ in range(int(random.integers(1, MOST + 1))):
        side = int(random.integers(SIZES[0], SIZES[1] + 1))
        digit = digits[random.integers(len(digits))] * 255 / WHITE
        ink = np.asarray(Image.fromarray(digit.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)) / 255
        rows, columns = (np.nonzero((ink > INK).any(axis=axis))[0] for axis in (1, 0))
        top, left = (int(random.integers(0, SIDE - side + 1)) for _ in range(2))
        box = (left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes):
            continue
        place = pixels[top : top + side, left : left + side]
        colour = random.integers(200, 256, 3) if place.mean() < 128 else random.integers(0, 56, 3)
        place += ink[..., None] * (colour - place)
        boxes.append(box)
    return Image.fromarray(pixels.round().astype(np.uint8)), boxes


def write(split: str, photographs: list[np.ndarray], digits: np.ndarray, random: np.random.Generator) -> None:
    """Writes the images of a split and its annotations, pasted_digits/SPLIT.json."""
    (HERE / split).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(COUNTS[split]):
        image, boxes = scene(photographs[number % len(photographs)], digits, random)
        name = f"{split}/{number:04d}.jpg"
        image.save(HERE / name, quality=95)
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        for left, top, right, bottom in boxes:
            box = [left, top, right - left, bottom - top]
            annotations.append({"id": len(annotations), "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0})
    said = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "digit"}]}
    (HERE / f"{split}.json").write_text(json.dumps(said), encoding="utf-8")


def main() -> None:
    """Writes all three splits."""
    random = np.random.default_rng(0)
    digits = random.permutation(load_digits().images)
    photographs = load_sample_images().images
    width = photographs[0].shape[1] // 2
    left, right = [each[:, :width] for each in photographs], [each[:, width:] for each in photographs]
    first, second = int(len(digits) * 0.8), int(len(digits) * 0.9)
    write("train", left, digits[:first], random)
    write("val", right, digits[first:second], random)
    write("test", right, digits[second:], random)


main()
