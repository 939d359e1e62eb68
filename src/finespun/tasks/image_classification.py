"""One label for each image."""

from __future__ import annotations

from typing import ClassVar

from finespun.tasks.answers.one_label import OneLabel
from finespun.tasks.inputs.images import ImageInput


class ImageClassification(ImageInput, OneLabel):
    """Binary and multi-class classification of images."""

    auto_class: ClassVar[str] = "AutoModelForImageClassification"
