"""One number, or several, for each text or pair of texts."""

from __future__ import annotations

from finespun.tasks.answers.numbers import Numbers
from finespun.tasks.inputs.text import TextInput


class TextRegression(TextInput, Numbers):
    """Regression on texts."""
