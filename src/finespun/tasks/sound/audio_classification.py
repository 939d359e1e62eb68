"""One label for each recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from finespun.tasks.answers.one_label import OneLabel
from finespun.tasks.sound.audio import AudioInput


class AudioClassification(AudioInput, OneLabel):
    """Binary and multi-class classification of sound."""

    auto_class: ClassVar[str] = "AutoModelForAudioClassification"
    cannot_keep: ClassVar[tuple[str, ...]] = ("unknown_label", "bad_audio")

    def model_options(self, labels: Sequence[str]) -> dict[str, Any]:
        return super().model_options(labels) | self.positions()
