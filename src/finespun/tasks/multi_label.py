"""Any number of labels for each text or pair of texts."""

from __future__ import annotations

from finespun.tasks.answers.several_labels import SeveralLabels
from finespun.tasks.inputs.text import TextInput


class MultiLabel(TextInput, SeveralLabels):
    """Multi-label classification of texts."""
