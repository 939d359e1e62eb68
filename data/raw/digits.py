"""Writes scikit-learn's 1,797 handwritten digits as an image folder: digits/LABEL/NUMBER.png, 8 x 8 grey pixels each."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
WHITE = 16  # the highest value of a pixel in the data

found = load_digits()
for number, (values, label) in enumerate(zip(found.images, found.target, strict=True)):
    folder = HERE / "digits" / str(label)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(values * 255 / WHITE).astype(np.uint8)).save(folder / f"{number:04d}.png")
