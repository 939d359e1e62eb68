"""What a checkpoint's image processor does, read from `preprocessor_config.json` without transformers, and done with Pillow."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finespun.errors import ModelError, listed

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]
Pixels = NDArray[np.uint8]  # (height, width, 3)
WHOLE_PIXELS = 16_000_000  # of an image on its way to the model's size; of larger ones only a part is made
LONGEST = 1_000_000  # pixels of a side, beyond which Pillow's weights alone take too much
REDUCING_GAP = 16.0  # times the wanted size, above which pixels are averaged first
IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# What transformers' processors do where preprocessor_config.json does not say it. Processors of other names do more.
KNOWN: dict[str, dict[str, Any]] = {
    "ViT": {"size": 224, "resample": 2},
    "DeiT": {"size": 256, "resample": 3, "do_center_crop": True},
    "ConvNext": {"size": {"shortest_edge": 384}, "resample": 3, "crop_pct": 224 / 256},
    "MobileNetV1": {"size": {"shortest_edge": 256}, "resample": 2, "do_center_crop": True},
    "MobileNetV2": {"size": {"shortest_edge": 256}, "resample": 2, "do_center_crop": True},
    "Bit": {
        "size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
    },
    "Segformer": {"size": 512, "resample": 2, **IMAGENET},
    "RTDetr": {"size": 640, "resample": 2, "do_normalize": False},
    "Detr": {"size": 800, "resample": 2, **IMAGENET},
    "ConditionalDetr": {"size": 800, "resample": 2, **IMAGENET},
    "DeformableDetr": {"size": 800, "resample": 2, **IMAGENET},
    "Yolos": {"size": 800, "resample": 2, **IMAGENET},
}  # fmt: skip
PADDING = ("RTDetr", "Detr", "ConditionalDetr", "DeformableDetr", "Yolos")  # processors that can letterbox
ALIKE = {
    "do_resize": True, "do_center_crop": False, "crop_size": 224, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": (0.5,) * 3, "image_std": (0.5,) * 3,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ImageEncoder:
    """A checkpoint's image processor: to which size, by which filter, cut to what, and what becomes of each of 256 values.

    `resize` is (height, width), the length of the shorter side, or None; `table` is (256, 3), the model's numbers.
    With `letterbox` an image keeps its shape inside `resize`, and what is left at the right or below it is zeros.
    """

    resize: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: int
    table: NDArray[np.float32]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    changes: Mapping[str, Any]  # of the processor, where the task asks for another size
    letterbox: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the model is given."""
        size = self.crop or self.resize
        assert isinstance(size, tuple), "checked when it was read"
        return size

    @classmethod
    def read(
        cls, folder: Path, image_size: int | None, *, whole: bool = False, letterbox: bool = False
    ) -> ImageEncoder:  # fmt: skip
        """Reads `preprocessor_config.json`, without transformers.

        `whole` images are not cut but stretched to one size, or with `letterbox` padded to it.

        Raises:
            ModelError: there is none, it cannot be read, or it is of a kind that does more than is known here, or pads nothing.
        """
        path = folder / "preprocessor_config.json"
        if not path.is_file():
            raise ModelError(
                f"{folder}: has no preprocessor_config.json (an image processor); take a model of images (model: mobilenet_v2),"
                " save one there with transformers, or say what it does in model.processor"
            )
        try:
            said = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path}: is no JSON object ({error}); restore the file") from error
        name = str(said.get("image_processor_type") or said.get("feature_extractor_type") or "none")
        kind = name.removesuffix("Fast").removesuffix("Pil").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
        if kind not in KNOWN:
            raise ModelError(
                f"{path}: image_processor_type is {name}; prepare knows what {listed(KNOWN)} do; describe the same steps"
                " as one of them in model.processor"
            )
        try:
            if letterbox and kind not in PADDING:
                raise ModelError(
                    f"task.resize: letterbox: {name} pads no images, so that the saved model's would be others; describe its"
                    " steps as those of a DetrImageProcessor in model.processor, or set task.resize: shortest_edge"
                )
            said = ALIKE | KNOWN[kind] | {key: v for key, v in said.items() if v is not None}
            if not whole:
                return _encoder(kind, said, path, image_size)
            changes = _stretched(said, image_size)
            encoder = replace(_encoder(kind, said | changes, path, None), changes=changes)
            return _letterboxed(encoder) if letterbox else encoder
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: size, crop_size, image_mean or image_std make no sense ({error!r}); mend it") from error

    def filled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns height and width of what an image of (width, height) fills of `size`, from the upper left corner on."""
        if not self.letterbox:
            return self.size
        scale = min(most / have for most, have in zip(self.size, reversed(size), strict=True))
        height, width = (max(1, int(have * scale)) for have in reversed(size))  # cut off, as transformers does it
        return height, width

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns width and height that an image of (width, height) is resized to, before anything is cut off it."""
        if self.letterbox:
            return self.filled(size)[::-1]
        return self.resize[::-1] if isinstance(self.resize, tuple) else _shorter(size, self.resize)

    def pixels(
        self, image: Image.Image, size: tuple[int, int] | None = None, box: Box | None = None
    ) -> Pixels:  # fmt: skip
        """Returns the image resized and cut as transformers does it with Pillow; of thin images only what is kept is made.

        `size` is (width, height) of the whole and `box` what of `image` that is, where a file was decoded to less
        (`data.images.Decoded`).
        """
        size = size or image.size
        width, height = self.resized(size)
        if self.letterbox:
            found = np.zeros((*self.size, 3), dtype=np.uint8)
            found[:height, :width] = replace(self, resize=(height, width), letterbox=False).pixels(image, size, box)
            return found
        kept = [_middle(*each) for each in zip((height, width), self.crop or (height, width), strict=True)]
        (rows, to_rows), (columns, to_columns) = kept
        if max(height, image.height) * width > WHOLE_PIXELS or max(image.size) > LONGEST:
            found = np.asarray(_part(image, (height, width), (rows, columns), self.resample))
        else:
            small = image.resize((width, height), resample=self.resample, box=box) if self.resize else image
            found = np.asarray(small)[rows, columns]
        if self.crop is None:
            return found
        cut = np.zeros((*self.crop, 3), dtype=np.uint8)  # black where the image is smaller
        cut[to_rows, to_columns] = found
        return cut

    def values(self, pixels: Pixels, filled: Sequence[Sequence[int]] = ()) -> NDArray[np.float32]:
        """Returns the model's numbers for pixels (..., 3), exactly those of transformers.

        Outside (height, width) of `filled`, one for each of (rows, height, width, 3), they are 0.
        """
        found = np.empty(pixels.shape, dtype=np.float32)
        for channel in range(3):  # looked up: 256 values a channel, made once, to the bit
            values = np.ascontiguousarray(self.table[:, channel])
            np.take(values, pixels[..., channel], out=found[..., channel], mode="clip")
        for row, (height, width) in enumerate(filled):
            found[row, height:] = 0.0
            found[row, :, width:] = 0.0
        return found


def _stretched(said: Mapping[str, Any], image_size: int | None) -> dict[str, Any]:
    """Returns the changes of a processor that cuts nothing off: to a square of `image_size`, or the size that it ends with."""
    size = said["crop_size"] if said["do_center_crop"] else said["size"]
    if isinstance(size, dict) and "max_height" in size:  # of a model that was trained on padded images
        size = {"height": size["max_height"], "width": size["max_width"]}
    side = image_size or (size.get("shortest_edge") if isinstance(size, dict) else size)
    height, width = _pair(side or size)
    return {"do_resize": True, "size": {"height": height, "width": width}, "do_center_crop": False, "do_pad": False}


def _letterboxed(encoder: ImageEncoder) -> ImageEncoder:
    height, width = encoder.size
    sizes = {"size": {"max_height": height, "max_width": width}, "pad_size": {"height": height, "width": width}}
    return replace(encoder, changes={**encoder.changes, **sizes, "do_pad": True}, letterbox=True)


def _encoder(kind: str, said: Mapping[str, Any], path: Path, image_size: int | None) -> ImageEncoder:
    size, crop = said["size"], _pair(said["crop_size"]) if said["do_center_crop"] else None
    size = (
        size
        if isinstance(size, dict)
        else {"height": size, "width": size}
        if kind in {"ViT", "DeiT", "Segformer", "RTDetr"}
        else {"shortest_edge": size}
    )
    changes: dict[str, Any] = {}
    if image_size:
        share = image_size / (crop[0] if crop else image_size)
        size = {name: round(side * share) if crop else image_size for name, side in size.items()}
        crop = (image_size, image_size) if crop else None
        changes = {"size": size} | ({"crop_size": {"height": image_size, "width": image_size}} if crop else {})
    resize: tuple[int, int] | int | None = None
    if said["do_resize"]:
        resize = int(size["shortest_edge"]) if "shortest_edge" in size else _pair(size)
    if kind == "ConvNext" and isinstance(resize, int):
        crop = (resize, resize)
        resize = int(resize / said["crop_pct"]) if resize < 384 else crop
    if crop is None and not isinstance(resize, tuple):
        raise ModelError(
            f"{path}: leaves images of different sizes; set do_center_crop and crop_size in model.processor, or a size with"
            " height and width"
        )
    mean, std = (tuple(np.broadcast_to(said[name], 3).tolist()) for name in ("image_mean", "image_std"))
    factor = float(said["rescale_factor"]) if said["do_rescale"] else 1.0
    table = (np.arange(256, dtype=np.float64)[:, None].repeat(3, axis=1) * factor).astype(np.float32)
    if said["do_normalize"]:
        table = np.divide(table - np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32), dtype=np.float32)
    return ImageEncoder(
        resize=resize, crop=crop, resample=int(said["resample"]), table=table, mean=mean, std=std, changes=changes
    )  # fmt: skip


def _pair(size: Any) -> tuple[int, int]:
    return (int(size["height"]), int(size["width"])) if isinstance(size, dict) else (int(size), int(size))


def _part(image: Image.Image, size: tuple[int, int], part: tuple[slice, slice], resample: int) -> Image.Image:
    """Returns `part` (rows, columns) of the image as it is after resizing to `size`, made of no more than what it needs.

    Resizing makes the whole width first, then the height: a scan line of 1 x 4,000 pixels would become gigabytes on the way.
    """
    spans = [_needed(*each) for each in zip((image.height, image.width), size, part, strict=True)]
    (top, upper, lower, bottom), (left, near, far, right) = spans
    image = image.crop((left, top, right, bottom))
    height, width = (kept.stop - kept.start for kept in part)
    for tall in (True, False) if image.height * width > WHOLE_PIXELS else (False, True):
        to, box = (image.width, height), (0.0, upper, float(image.width), lower)
        if not tall:
            to, box = (width, image.height), (near, 0.0, far, float(image.height))
        image = image.resize(to, resample=resample, box=box, reducing_gap=REDUCING_GAP)
    return image


def _needed(have: int, want: int, kept: slice) -> tuple[int, float, float, int]:
    """Of one side: where the part that is needed begins, where in that part what is kept begins and ends, and its end."""
    scale = have / want
    first, last = kept.start * scale, kept.stop * scale
    reach = 3 * max(scale, 1.0) + 1  # of the widest filter
    start, stop = max(0, math.floor(first - reach)), min(have, math.ceil(last + reach))
    return start, max(0.0, first - start), min(float(stop - start), last - start), stop


def _shorter(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    if side is None:
        return size
    longer = int(side * max(size) / min(size))
    return (side, longer) if size[0] <= size[1] else (longer, side)


def _middle(have: int, want: int) -> tuple[slice, slice]:
    """Which of `have` places go to which of `want`: the middle ones; of an odd rest, as transformers rounds it."""
    if have >= want:
        return slice((have - want) // 2, (have - want) // 2 + want), slice(0, want)
    before = -((have - want) // 2)
    return slice(0, have), slice(before, before + have)
