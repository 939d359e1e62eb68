"""Weights in 4 bits (Dettmers et al., "QLoRA", NeurIPS 2023): what transformers is asked for, and the way back."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from finespun.errors import ConfigError, MachineError

NEEDED = ("bitsandbytes", "accelerate")


def in_four_bits(accelerator: str, *, devices: int) -> dict[str, Any]:
    """Returns the option of `from_pretrained` that loads linear layers as NF4 with doubly quantized scales, onto the GPU.

    Raises:
        MachineError: there is no CUDA GPU, or a package is missing.
        ConfigError: there are several devices.
    """
    if accelerator != "cuda":
        raise MachineError(
            f"strategy.four_bit: bitsandbytes' 4-bit weights are for CUDA GPUs, and this run is on {accelerator}; set"
            " strategy.four_bit: false, or run it where there is a GPU"
        )
    if devices > 1:
        several = f"trains on one GPU, and there are {devices} processes"
        raise ConfigError([f"strategy.four_bit: {several}; set runtime.devices: 1, or four_bit: false"])
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MachineError(f"strategy.four_bit: needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    arithmetic = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    asked: Any = BitsAndBytesConfig
    return {
        "quantization_config": asked(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=arithmetic
        )
    }
