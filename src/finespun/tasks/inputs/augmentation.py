"""Random changes of images in training, through kornia: a function of (seed, epoch, row), never of the batch around a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from finespun.config.sections import Section, Share
from finespun.errors import MachineError, listed

if TYPE_CHECKING:
    import torch

STREAM = 1  # of random numbers: 0 is the order of rows
HALF_A_TURN = Annotated[float, Field(ge=0, le=180)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


LEVELS: dict[str, tuple[Any, ...]] = {  # in the order of the options
    "off": (False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "light": (True, 5.0, 0.05, 0.1, 0.1, 0.1, 0.1),
    "strong": (True, 15.0, 0.1, 0.3, 0.2, 0.3, 0.3),
}


class Augmentation(Section):
    """How far an image may be changed, each time another way; 0 and false change nothing. Or the name of one of LEVELS."""

    flip: bool  # left to right, every other time
    rotation: HALF_A_TURN  # degrees, either way
    translation: BelowOne  # share of the side, either way in both directions
    scale: BelowOne  # 0.1: from 0.9 to 1.1 times the size
    brightness: Share  # added: 0.1 is from -0.1 to 0.1 of white
    contrast: BelowOne  # multiplied: 0.1 is from 0.9 to 1.1
    saturation: BelowOne  # multiplied, as contrast

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        given = "off" if given is False else given  # as YAML reads it
        if isinstance(given, str):
            if given not in LEVELS:
                raise ValueError(f"is off, light, strong, or its options ({listed(cls.model_fields)})")
            return dict(zip(cls.model_fields, LEVELS[given], strict=True))
        return given

    @property
    def on(self) -> bool:
        return any(getattr(self, name) for name in type(self).model_fields)

    def draws(self, rows: torch.Tensor, *, epoch: int, seed: int) -> dict[str, torch.Tensor]:
        """Returns how far each row is changed, (rows,) from -1 to 1 for each option; two for `translation`."""
        import torch  # noqa: PLC0415  (configure checks this class's options and needs no torch)

        names = ["flip", "rotation", "scale", "brightness", "contrast", "saturation", "right", "down"]
        key = np.array([seed, epoch], dtype=np.uint64)
        found = [np.random.Generator(np.random.Philox(key=key, counter=[0, 0, row, STREAM])).random(len(names))
                 for row in rows.tolist()]  # fmt: skip
        values = torch.from_numpy(np.stack(found).astype(np.float32) * 2 - 1).to(rows.device)
        return dict(zip(names, values.T, strict=True))

    def apply(self, images: torch.Tensor, rows: torch.Tensor, *, epoch: int, seed: int) -> torch.Tensor:
        """Returns changed images, (rows, 3, height, width) from 0 to 1 as they were given.

        Shifts, turns and sizes are one interpolation; what comes in from outside repeats the edge.

        Raises:
            MachineError: kornia is not installed.
        """
        import torch  # noqa: PLC0415

        try:
            from kornia import enhance  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise MachineError(
                f"task.augmentation needs kornia ({error}): pip install 'finespun[images]', or set all of it to 0"
            ) from error
        drawn = self.draws(rows.to(images.device), epoch=epoch, seed=seed)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # places in bfloat16 would be off by pixels
            if self.moves:
                images = warped(images, self._matrix(drawn, images.shape[-2:]), flip=self._flips(drawn))
            if self.brightness:
                images = enhance.adjust_brightness(images, drawn["brightness"] * self.brightness)
            if self.contrast:
                images = enhance.adjust_contrast(images, 1 + drawn["contrast"] * self.contrast)
            if self.saturation:
                images = enhance.adjust_saturation(images, 1 + drawn["saturation"] * self.saturation)
        return images

    @property
    def moves(self) -> bool:
        """Whether anything changes its place."""
        return bool(self.flip or self.rotation or self.translation or self.scale)

    def moved(
        self, rows: torch.Tensor, size: tuple[int, int], *, epoch: int, seed: int
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Returns how `apply` moves pixels of rows: (rows, 2, 3) of turns, sizes and shifts, after (rows,) flips.

        None where nothing is turned, sized or shifted.
        """
        drawn = self.draws(rows, epoch=epoch, seed=seed)
        return self._matrix(drawn, size), self._flips(drawn)

    def _flips(self, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        return (drawn["flip"] < 0) & self.flip

    def _matrix(self, drawn: dict[str, torch.Tensor], size: Sequence[int]) -> torch.Tensor | None:
        import torch  # noqa: PLC0415
        from kornia.geometry import transform  # noqa: PLC0415

        if not (self.rotation or self.translation or self.scale):
            return None
        height, width = size
        shift = torch.stack([drawn["right"] * width, drawn["down"] * height], 1) * self.translation
        centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=shift.device).expand_as(shift)
        scale = (1 + drawn["scale"] * self.scale)[:, None].expand_as(shift)
        return transform.get_affine_matrix2d(shift, centre, scale, drawn["rotation"] * self.rotation)[:, :2]


def warped(
    images: torch.Tensor, matrix: torch.Tensor | None, *, flip: torch.Tensor, outside: float | None = None
) -> torch.Tensor:
    """Returns images (rows, channels, height, width), flipped, then moved by one interpolation.

    What comes in from outside repeats the edge; with `outside`, of whole numbers, the nearest is taken and that comes in.
    """
    import torch  # noqa: PLC0415

    if flip.any():
        images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    if matrix is None:
        return images
    from kornia.geometry import transform  # noqa: PLC0415

    size = (images.shape[-2], images.shape[-1])
    if outside is None:
        return transform.warp_affine(images, matrix, size, padding_mode="border", align_corners=True)
    shifted = images - outside  # so that zeros are what comes in
    found = transform.warp_affine(shifted, matrix, size, mode="nearest", padding_mode="zeros", align_corners=True)
    return found.round() + outside
