"""One label for each image."""

from __future__ import annotations

from typing import ClassVar

from finespun.tasks.images import ImageInput
from finespun.tasks.one_label import OneLabel


class ImageClassification(ImageInput, OneLabel):
    """Binary and multi-class classification of images."""

    auto_class: ClassVar[str] = "AutoModelForImageClassification"
    roles: ClassVar[tuple[str, ...]] = ("image", "label")
