"""Any number of labels for each image."""

from __future__ import annotations

from typing import ClassVar

from finespun.tasks.answers.several_labels import SeveralLabels
from finespun.tasks.inputs.images import ImageInput


class ImageMultiLabel(ImageInput, SeveralLabels):
    """Multi-label classification of images."""

    auto_class: ClassVar[str] = "AutoModelForImageClassification"
