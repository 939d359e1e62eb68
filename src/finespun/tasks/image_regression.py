"""One number, or several, for each image."""

from __future__ import annotations

from typing import ClassVar

from finespun.tasks.answers.numbers import Numbers
from finespun.tasks.inputs.images import ImageInput


class ImageRegression(ImageInput, Numbers):
    """Regression on images."""

    auto_class: ClassVar[str] = "AutoModelForImageClassification"
