"""Any number of labels for each recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from finespun.tasks.answers.several_labels import SeveralLabels
from finespun.tasks.sound.audio import AudioInput


class AudioMultiLabel(AudioInput, SeveralLabels):
    """Multi-label classification of sound."""

    auto_class: ClassVar[str] = "AutoModelForAudioClassification"
    cannot_keep: ClassVar[tuple[str, ...]] = ("bad_target", "bad_audio")

    def model_options(self, labels: Sequence[str]) -> dict[str, Any]:
        return super().model_options(labels) | self.positions()
