"""Audio files become mono samples of one rate, or a reason why not. Imports no torch."""

from __future__ import annotations

import base64
import binascii
import io
import wave
from math import gcd

import numpy as np
from numpy.typing import NDArray

from finespun.data.images import Places, UnreadableError, locate
from finespun.masking import one_line

INLINE = "data:audio/"  # audio as text: data:audio/wav;base64,...
RIFF = b"RIFF"
LARGEST = 2**31  # bytes of a file: more are no recording of a row
FULL = 2**15  # of a sample of 16 bits
REMEDY = "save it again as WAV, remove it, or set data.checks.bad_audio: drop"

Samples = NDArray[np.int16]


def read(name: str, places: Places, *, rate: int) -> Samples:
    """Returns the samples of a file, (samples,) of 16 bits, its channels averaged, at `rate` a second.

    WAV of whole numbers is read by the standard library; other kinds (FLAC, OGG, MP3, WAV of floats) by soundfile, an extra.

    Args:
        name: a path, or `data:audio/wav;base64,` and the bytes of a file.
        places: where files are looked for and may lie.
        rate: samples a second.

    Raises:
        UnreadableError: the file is not there, is no audio, is damaged, empty or silent.
    """
    data = _bytes(name, places)
    if not data:
        raise UnreadableError("is empty (0 bytes); fetch it again, or set data.checks.bad_audio: drop")
    values, own = _waveform(data)
    if not len(values):
        raise UnreadableError(f"holds no sound (0 samples); {REMEDY}")
    if not np.isfinite(values).all():
        raise UnreadableError(f"holds samples that are no numbers; {REMEDY}")
    if not values.any():
        raise UnreadableError("is silent from beginning to end; remove it, or set data.checks.bad_audio: drop")
    return _resampled(values.mean(axis=1), own, rate)


def wav(samples: Samples, rate: int) -> bytes:
    """Returns the bytes of a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(samples.tobytes())
    return file.getvalue()


def _bytes(name: str, places: Places) -> bytes:
    if name.startswith(INLINE):
        try:
            return base64.b64decode(name.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise UnreadableError(f"is not base64 ({error}); write data:audio/wav;base64, and the file's bytes") from error
    path = locate(name, places, what="audio file")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror}); correct its permissions") from error
    if len(data) > LARGEST:
        raise UnreadableError("has more than 2 GB; cut it into pieces")
    return data


def _waveform(data: bytes) -> tuple[NDArray[np.float64], int]:
    """Returns values from -1 to 1, (samples, channels), and how many a second."""
    if data.startswith(RIFF):
        try:
            with wave.open(io.BytesIO(data)) as file:
                width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
                said, frames = file.getnframes(), file.readframes(file.getnframes())
        except (wave.Error, EOFError) as error:
            if "unknown format" not in str(error):  # floats, A-law and others are for soundfile
                raise UnreadableError(f"is damaged ({one_line(error, 100) or 'it is cut short'}); {REMEDY}") from error
        else:
            if len(frames) != said * width * channels or not rate:
                raise UnreadableError(f"is cut short: {len(frames):,} bytes of sound where its header says more; {REMEDY}")
            return _numbers(frames, width).reshape(-1, channels), rate
    return _by_soundfile(data)


def _numbers(frames: bytes, width: int) -> NDArray[np.float64]:
    """Returns whole numbers of some bytes as -1 to 1; a single byte has no sign, three are read as the upper ones of four."""
    if width == 1:
        return (np.frombuffer(frames, np.uint8).astype(np.float64) - 128) / 128
    if width == 3:  # bytes
        parts = np.zeros((len(frames) // 3, 4), np.uint8)
        parts[:, 1:] = np.frombuffer(frames, np.uint8).reshape(-1, 3)
        return parts.view("<i4").ravel() / 2.0**31
    return np.frombuffer(frames, f"<i{width}") / 2.0 ** (8 * width - 1)


def _by_soundfile(data: bytes) -> tuple[NDArray[np.float64], int]:
    try:
        import soundfile  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise UnreadableError(
            "is no WAV of whole numbers; other kinds are read with an extra: pip install 'finespun[speech]'"
        ) from error
    try:
        values, rate = soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError) as error:
        raise UnreadableError(f"is no audio of a known kind, or damaged ({one_line(error, 100)}); {REMEDY}") from error
    return values, int(rate)


def _resampled(values: NDArray[np.float64], own: int, rate: int) -> Samples:
    if own != rate:
        from scipy.signal import resample_poly  # noqa: PLC0415  (0.3 s that other data need not pay)

        shared = gcd(own, rate)
        values = resample_poly(values, rate // shared, own // shared)
    return np.round(np.clip(values * FULL, -FULL, FULL - 1)).astype(np.int16)
