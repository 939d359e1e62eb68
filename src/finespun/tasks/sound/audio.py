"""Sound as a task's input: read, resampled and cut into windows in `prepare`, made into the model's numbers at batch time."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt, PrivateAttr

from finespun.data import audio, images
from finespun.errors import ModelError
from finespun.files import read_json
from finespun.models.features import feature_extractor, features
from finespun.tasks.base import Columns, Defaults, Judgement, Outputs, Problem, Role, Values

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

FRAMES_A_SECOND = 50  # what counts as tokens where the rows of a forward pass are chosen: 20 ms each
BANDS, FRAME = 32, 400  # that simple methods see; samples of a spectrum
REMEDY = "take a checkpoint with one: Whisper, wav2vec 2.0, HuBERT, WavLM, AST"


@dataclass(frozen=True)
class AudioEncoder:
    """What `prepare` needs of a checkpoint's feature extractor, and the whole of it at batch time.

    `seconds` is the length of a window, where the model hears no other (Whisper), and of the longest otherwise.
    """

    folder: Path
    rate: int
    seconds: int
    fixed: bool
    changes: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, seconds: int | None) -> AudioEncoder:
        """Reads `preprocessor_config.json`, or `processor_config.json` where transformers put it there.

        Raises:
            ModelError: there is none, or it describes no sound.
        """
        said: dict[str, Any] = {}
        for name in ("processor_config.json", "preprocessor_config.json"):
            if (folder / name).is_file():
                found = read_json(folder / name, error=ModelError, remedy="restore the file")
                said |= found.get("feature_extractor", found)
        rate = said.get("sampling_rate")
        if not isinstance(rate, int) or rate < 1:
            raise ModelError(f"{folder}: has no feature extractor for sound (a sampling_rate); {REMEDY}")
        fixed, hop = "chunk_length" in said, int(said.get("hop_length", 0))
        most = int(said.get("chunk_length", seconds or 30))
        if fixed and seconds and seconds > most:
            raise ModelError(f"task.seconds: {seconds} is more than the {most} that {folder} hears at once; lower it")
        length = seconds or most
        changes = {"chunk_length": length, "n_samples": length * rate, "nb_max_frames": length * rate // hop} if fixed else {}
        return cls(folder, rate, length, fixed, changes)

    @cached_property
    def extractor(self) -> Any:
        """The one of transformers, for windows of `seconds`."""
        return feature_extractor(self.folder, self.changes)


class _Answer(Defaults):
    """What the answer that is mixed with this input does with whole rows."""

    if TYPE_CHECKING:

        def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
            """As in the Protocol."""

        def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
            """As in the Protocol."""


class AudioInput(_Answer):
    """Reads `audio`, the path of a file; keeps its samples at the model's rate, in windows of `seconds`."""

    processor: ClassVar[str] = "AutoFeatureExtractor"
    input_roles: ClassVar[Mapping[str, Role]] = {"audio": Role()}
    model_columns: ClassVar[tuple[str, ...]] = ("samples",)
    rows_at_once: ClassVar[int] = 64  # 61 MB of windows of 30 seconds
    unit: ClassVar[str] = "frames_of_20ms"

    shown: ClassVar[tuple[str, ...]] = ("audio",)
    simple: ClassVar[tuple[str, float]] = ("spectrum", 1.0)
    answer_roles: ClassVar[Mapping[str, Role]]

    seconds: PositiveInt | None  # of a window; None: what the model's feature extractor says
    windows: Literal["all", "first"]

    _places: images.Places = PrivateAttr(images.Places((Path(),), (Path(),)))
    _rate: int = PrivateAttr(default=16_000)
    _heard: AudioEncoder | None = PrivateAttr(default=None)
    _last: dict[str, audio.Samples] = PrivateAttr(default_factory=dict)
    _contents: dict[str, str] = PrivateAttr(default_factory=dict)

    def files(self, values: Values) -> Iterator[Path]:
        return images.named_files([values.get("audio")], self._places)

    def reading_from(self, *folders: Path, inside: Sequence[Path] | None = None) -> Self:
        found = self.model_copy()
        found._places = images.Places(folders, inside or folders)  # noqa: SLF001  (a copy of this very class)
        found._last, found._contents = {}, {}  # noqa: SLF001
        return found

    def _read(self, name: str) -> audio.Samples:
        """Keeps the last file: a row's checks ask for it several times."""
        if name not in self._last:
            found = audio.read(name, self._places, rate=self._rate)
            self._last.clear()
            self._last[name] = found
        return self._last[name]

    def content(self, values: Values) -> str:
        """A digest of the samples."""
        name = values["audio"]
        if name not in self._contents:
            self._contents[name] = hashlib.blake2b(self._read(name).tobytes(), digest_size=16).hexdigest()
        return self._contents[name]

    def problems(self, values: Values, labels: Sequence[str] | None) -> Iterator[Problem]:
        yield from super().problems(values, labels)
        try:
            self._read(values["audio"])
        except images.UnreadableError as error:
            yield "bad_audio", "audio", str(error)

    def encoder(self, folder: Path) -> AudioEncoder:
        self._heard = self.hearing(AudioEncoder.read(folder, self.seconds))
        return self._heard

    def hearing(self, encoder: AudioEncoder) -> AudioEncoder:
        """Takes note of the rate at which files are to be read."""
        if encoder.rate != self._rate:
            self._rate = encoder.rate
            self._last.clear()
            self._contents.clear()
        return encoder

    @staticmethod
    def sound(encoder: Any) -> AudioEncoder:
        """What an encoder knows of sound: it may also know of texts."""
        found: AudioEncoder = getattr(encoder, "audio", encoder)
        return found

    def encode(self, rows: Sequence[Values], encoder: Any, labels: Sequence[str] | None) -> Columns:
        """Returns the paths and the samples of each window; `source` says which row each is of."""
        import pyarrow as pa  # noqa: PLC0415  (configure checks this class's options and needs no Arrow)

        heard = self.sound(encoder)
        size = heard.seconds * heard.rate
        names, source, windows, cut = [], [], [], []
        for place, row in enumerate(rows):
            samples = self._read(row["audio"])
            name = row["audio"] if not row["audio"].startswith(audio.INLINE) else f"{row['audio'][:32]}..."
            starts = range(0, len(samples), size) if self.windows == "all" else [0]
            for start in starts:
                names.append(name)
                source.append(place)
                windows.append(samples[start : start + size].tobytes())
                cut.append(self.windows == "first" and len(samples) > size)
        answers = super().encode(rows, encoder, labels)
        frames = [-(-len(window) // 2 * FRAMES_A_SECOND // heard.rate) for window in windows]
        return {
            "source": pa.array(source, pa.int64()),
            "audio": pa.array(names, pa.string()),
            "samples": pa.array(windows, pa.large_binary()),
            "length": pa.array([max(1, each) for each in frames], pa.int32()),
            "truncated": pa.array(cut, pa.bool_()),
        } | {name: column.take(pa.array(source, pa.int64())) for name, column in answers.items()}

    def collate(
        self, columns: Mapping[str, Sequence[Any]], encoder: Any
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """Returns what the checkpoint's feature extractor makes of the windows: `input_features` or `input_values`."""
        heard = self.sound(encoder)
        given = [np.frombuffer(each, np.int16).astype(np.float32) / audio.FULL for each in columns["samples"]]
        found = features(heard.extractor, given, rate=heard.rate, fixed=heard.fixed)
        return found, super().collate(columns, encoder)[1]

    def positions(self) -> dict[str, int]:
        """Changes to the configuration of a model that hears windows of one length alone: as many positions as they need."""
        if self._heard is None or not self._heard.fixed:
            return {}
        return {"max_source_positions": self._heard.seconds * FRAMES_A_SECOND}

    def processor_options(self, encoder: Any) -> dict[str, Any]:
        return dict(self.sound(encoder).changes)

    def given(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The window as a WAV in text: an example that works where the files are not."""
        content = audio.wav(np.frombuffer(row["samples"], np.int16), self._rate)
        return {"audio": f"{audio.INLINE}wav;base64,{base64.b64encode(content).decode()}"}

    def predictions(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str], *, top_k: int) -> list[dict[str, Any]]:
        return super().predictions(*_whole(rows, outputs), labels, top_k=top_k)

    def judge(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> Judgement:
        return super().judge(*_whole(rows, outputs), labels)

    def decide(self, rows: pa.Table, outputs: Outputs, labels: Sequence[str]) -> dict[str, Any]:
        return super().decide(*_whole(rows, outputs), labels)

    def features(self, train: pa.Table, split: pa.Table) -> tuple[Any, Any]:
        """Returns the spectra of both, (rows, 64), as deviations from those of `train`."""
        seen, asked = _spectra(train), _spectra(split)
        mean, deviation = seen.mean(axis=0), seen.std(axis=0) + 1e-6
        return (seen - mean) / deviation, (asked - mean) / deviation


def _whole(rows: pa.Table, outputs: Outputs) -> tuple[pa.Table, Outputs]:
    """Returns a row for each file, the first of its windows, and the mean of its windows' outputs."""
    numbers = rows["row"].to_numpy()
    _, first, place, count = np.unique(numbers, return_index=True, return_inverse=True, return_counts=True)
    if len(first) == len(numbers):
        return rows, outputs
    order = np.argsort(first)
    sums = np.zeros((len(first), *np.shape(outputs[0])))
    np.add.at(sums, place, np.stack(outputs))
    return rows.take(first[order]), [sums[each] / count[each] for each in order]


def _spectra(table: pa.Table) -> NDArray[np.float32]:
    """Returns mean and deviation over time of the log power in bands, (rows, 64)."""
    found = np.empty((table.num_rows, 2 * BANDS), dtype=np.float32)
    for place, samples in enumerate(table["samples"]):
        values = np.frombuffer(samples.as_buffer(), np.int16).astype(np.float32) / audio.FULL
        frames = np.resize(values, (max(1, len(values) // FRAME), FRAME)) * np.hanning(FRAME)
        power = np.abs(np.fft.rfft(frames)[:, 1:]) ** 2
        bands = np.log10(np.stack([part.mean(axis=1) for part in np.array_split(power, BANDS, axis=1)], axis=1) + 1e-8)
        found[place] = np.concatenate([bands.mean(axis=0), bands.std(axis=0)])
    return found
