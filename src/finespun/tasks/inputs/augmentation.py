"""Random changes of images in training, through kornia: a function of (seed, epoch, row), never of the batch around a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from finespun.config.sections import Section, Share
from finespun.errors import MachineError

if TYPE_CHECKING:
    import torch

STREAM = 1  # of random numbers: 0 is the order of rows
HALF_A_TURN = Annotated[float, Field(ge=0, le=180)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class Augmentation(Section):
    """How far an image may be changed, each time another way; 0 and false change nothing."""

    flip: bool  # left to right, every other time
    rotation: HALF_A_TURN  # degrees, either way
    translation: BelowOne  # share of the side, either way in both directions
    scale: BelowOne  # 0.1: from 0.9 to 1.1 times the size
    brightness: Share  # added: 0.1 is from -0.1 to 0.1 of white
    contrast: BelowOne  # multiplied: 0.1 is from 0.9 to 1.1
    saturation: BelowOne  # multiplied, as contrast

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
            if self.flip:
                images = torch.where(drawn["flip"][:, None, None, None] < 0, images.flip(-1), images)
            if self.rotation or self.translation or self.scale:
                images = self._moved(images, drawn)
            if self.brightness:
                images = enhance.adjust_brightness(images, drawn["brightness"] * self.brightness)
            if self.contrast:
                images = enhance.adjust_contrast(images, 1 + drawn["contrast"] * self.contrast)
            if self.saturation:
                images = enhance.adjust_saturation(images, 1 + drawn["saturation"] * self.saturation)
        return images

    def _moved(self, images: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        import torch  # noqa: PLC0415
        from kornia.geometry import transform  # noqa: PLC0415

        height, width = images.shape[-2:]
        shift = torch.stack([drawn["right"] * width, drawn["down"] * height], 1) * self.translation
        centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=images.device).expand_as(shift)
        size = (1 + drawn["scale"] * self.scale)[:, None].expand_as(shift)
        matrix = transform.get_affine_matrix2d(shift, centre, size, drawn["rotation"] * self.rotation)[:, :2]
        return transform.warp_affine(images, matrix, (height, width), padding_mode="border", align_corners=True)
