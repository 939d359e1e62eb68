"""One label for each text, or for each pair of texts."""

from __future__ import annotations

from finespun.tasks.answers.one_label import OneLabel
from finespun.tasks.inputs.text import TextInput


class TextClassification(TextInput, OneLabel):
    """Binary and multi-class classification of texts."""
