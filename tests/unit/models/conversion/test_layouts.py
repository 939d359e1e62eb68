"""Image classifiers of torchvision and timm by their names: each tensor finds its place, what is not of the layout is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from finespun.config.sections import ModelConfig
from finespun.errors import ModelError
from finespun.models.conversion.folder import architecture, ready
from finespun.models.conversion.layouts import in_transformers_names

Shapes = dict[str, tuple[int, ...]]
NORM = ("weight", "bias")
B0 = {"model_type": "efficientnet", "width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "image_size": 224}


def norm(name: str, width: int, *, batch: bool = False) -> Shapes:
    found: Shapes = {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    if batch:
        found |= {f"{name}.running_mean": (width,), f"{name}.running_var": (width,), f"{name}.num_batches_tracked": ()}
    return found


def linear(name: str, given: int, made: int) -> Shapes:
    return {f"{name}.weight": (made, given), f"{name}.bias": (made,)}


def resnet(depths: list[int], widths: list[int], *, bottleneck: bool, labels: int = 1000) -> Shapes:
    """Names and shapes of `torchvision.models.resnet*` and of timm's, which are the same."""
    found: Shapes = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64, batch=True)
    before = 64
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
        inner = width // 4 if bottleneck else width
        for layer in range(depth):
            name = f"layer{stage}.{layer}"
            if bottleneck:
                sizes = [(inner, before, 1, 1), (inner, inner, 3, 3), (width, inner, 1, 1)]
            else:
                sizes = [(inner, before, 3, 3), (inner, inner, 3, 3)]
            for number, size in enumerate(sizes, 1):
                found |= {f"{name}.conv{number}.weight": size} | norm(f"{name}.bn{number}", size[0], batch=True)
            if layer == 0 and (stage > 1 or bottleneck):
                found |= {f"{name}.downsample.0.weight": (width, before, 1, 1)} | norm(
                    f"{name}.downsample.1", width, batch=True
                )
            before = width
    return found | linear("fc", before, labels)


def convnext(layout: str, depths: list[int], widths: list[int], labels: int = 1000) -> Shapes:
    """Names and shapes of `convnext_*`: in timm by stage and block, in torchvision by position in a sequence."""
    timm = layout == "timm"
    stem = "stem" if timm else "features.0"
    found: Shapes = {f"{stem}.0.weight": (widths[0], 3, 4, 4), f"{stem}.0.bias": (widths[0],)} | norm(f"{stem}.1", widths[0])
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            down, before = (f"stages.{stage}.downsample" if timm else f"features.{2 * stage}"), widths[stage - 1]
            found |= norm(f"{down}.0", before) | {f"{down}.1.weight": (width, before, 2, 2), f"{down}.1.bias": (width,)}
        for layer in range(depth):
            name = f"stages.{stage}.blocks.{layer}" if timm else f"features.{2 * stage + 1}.{layer}"
            parts = ("conv_dw", "norm", "mlp.fc1", "mlp.fc2") if timm else ("block.0", "block.2", "block.3", "block.5")
            found[f"{name}.gamma" if timm else f"{name}.layer_scale"] = (width,) if timm else (width, 1, 1)
            found |= {f"{name}.{parts[0]}.weight": (width, 1, 7, 7), f"{name}.{parts[0]}.bias": (width,)}
            found |= norm(f"{name}.{parts[1]}", width)
            found |= linear(f"{name}.{parts[2]}", width, 4 * width) | linear(f"{name}.{parts[3]}", 4 * width, width)
    heads = ("head.norm", "head.fc") if timm else ("classifier.0", "classifier.2")
    return found | norm(heads[0], widths[-1]) | linear(heads[1], widths[-1], labels)


def vit(layout: str, depth: int, width: int, *, side: int = 224, patch: int = 16, labels: int = 1000) -> Shapes:
    """Names and shapes of `vit_*`."""
    timm, tokens = layout == "timm", (side // patch) ** 2 + 1
    found: Shapes = {"cls_token" if timm else "class_token": (1, 1, width)}
    found["pos_embed" if timm else "encoder.pos_embedding"] = (1, tokens, width)
    projection = "patch_embed.proj" if timm else "conv_proj"
    found |= {f"{projection}.weight": (width, 3, patch, patch), f"{projection}.bias": (width,)}
    for number in range(depth):
        name = f"blocks.{number}" if timm else f"encoder.layers.encoder_layer_{number}"
        attention = ("attn.qkv.weight", "attn.qkv.bias", "attn.proj")
        if not timm:
            attention = ("self_attention.in_proj_weight", "self_attention.in_proj_bias", "self_attention.out_proj")
        norms, mlp = (("norm1", "norm2"), ("fc1", "fc2")) if timm else (("ln_1", "ln_2"), ("0", "3"))
        found |= {f"{name}.{attention[0]}": (3 * width, width), f"{name}.{attention[1]}": (3 * width,)}
        found |= linear(f"{name}.{attention[2]}", width, width)
        found |= norm(f"{name}.{norms[0]}", width) | norm(f"{name}.{norms[1]}", width)
        found |= linear(f"{name}.mlp.{mlp[0]}", width, 4 * width) | linear(f"{name}.mlp.{mlp[1]}", 4 * width, width)
    return found | norm("norm" if timm else "encoder.ln", width) | linear("head" if timm else "heads.head", width, labels)


def efficientnet(layout: str, labels: int = 1000) -> Shapes:
    """Names and shapes of `efficientnet_b0`; timm's `tf_efficientnet_b0` has the same."""
    timm = layout == "timm"
    found: Shapes = {"conv_stem.weight" if timm else "features.0.0.weight": (32, 3, 3, 3)}
    found |= norm("bn1" if timm else "features.0.1", 32, batch=True)
    before = 32
    stages = [(1, 16, 3), (2, 24, 3), (2, 40, 5), (3, 80, 3), (3, 112, 5), (4, 192, 5), (1, 320, 3)]
    for stage, (depth, width, kernel) in enumerate(stages):
        for layer in range(depth):
            name = f"blocks.{stage}.{layer}." if timm else f"features.{stage + 1}.{layer}.block."
            inner, squeezed = before * (6 if stage else 1), before // 4
            parts = [
                ("dw", (inner, 1, kernel, kernel)),
                ("se", (squeezed, inner, 1, 1)),
                ("pwl" if stage else "pw", (width, inner, 1, 1)),
            ]
            parts = [("pw", (inner, before, 1, 1)), *parts] if stage else parts
            norms = 0
            for place, (part, shape) in enumerate(parts):
                if part == "se":
                    both = ("se.conv_reduce", "se.conv_expand") if timm else (f"{place}.fc1", f"{place}.fc2")
                    for each, size in zip(both, (shape, (inner, squeezed, 1, 1)), strict=True):
                        found |= {f"{name}{each}.weight": size, f"{name}{each}.bias": size[:1]}
                    continue
                norms += 1
                found[f"{name}conv_{part}.weight" if timm else f"{name}{place}.0.weight"] = shape
                found |= norm(f"{name}bn{norms}" if timm else f"{name}{place}.1", shape[0], batch=True)
            before = width
    found["conv_head.weight" if timm else "features.8.0.weight"] = (1280, 320, 1, 1)
    found |= norm("bn2" if timm else "features.8.1", 1280, batch=True)
    return found | linear("classifier" if timm else "classifier.1", 1280, labels)


def published() -> Iterator[Any]:
    """Models of both libraries, the numbers of their parameters as published, and transformers' configurations."""
    basic = {"model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    for layout in ("torchvision", "timm"):
        yield pytest.param(
            layout, resnet([2] * 4, [64, 128, 256, 512], bottleneck=False), basic, 11_689_512, id=f"{layout}-resnet18"
        )
        yield pytest.param(
            layout, resnet([3, 4, 6, 3], [256, 512, 1024, 2048], bottleneck=True), {"model_type": "resnet"}, 25_557_032,
            id=f"{layout}-resnet50",
        )  # fmt: skip
        yield pytest.param(
            layout, convnext(layout, [3, 3, 9, 3], [96, 192, 384, 768]), {"model_type": "convnext"}, 28_589_128,
            id=f"{layout}-convnext_tiny",
        )  # fmt: skip
        yield pytest.param(
            layout, vit(layout, 12, 768), {"model_type": "vit"}, 86_567_656, id=f"{layout}-vit_b_16"
        )  # fmt: skip
        yield pytest.param(layout, efficientnet(layout), B0, 5_288_548, id=f"{layout}-efficientnet_b0")


def is_state(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


@pytest.mark.parametrize(("layout", "shapes", "said", "parameters"), list(published()))
def test_published_shapes_are_those_of_transformers(
    tmp_path: Path, layout: str, shapes: Shapes, said: dict[str, Any], parameters: int
) -> None:
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
        config = architecture(said | {"num_labels": 1000})
        model = transformers.AutoModelForImageClassification.from_config(config)
    assert sum(tensor.numel() for name, tensor in tensors.items() if not is_state(name)) == parameters
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = in_transformers_names(tensors, layout, config, expected, tmp_path / "w.pth")
    assert {name: tensor.shape for name, tensor in found.items()} == expected


TINY = {
    "resnet": {
        "model_type": "resnet", "layer_type": "basic", "embedding_size": 64, "hidden_sizes": [64, 72, 80, 88],
        "depths": [1] * 4,
    },
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 1, 1], "layer_norm_eps": 1e-6},
    "vit": {
        "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "image_size": 32,
    },
}  # fmt: skip


def of_tiny(layout: str, name: str, labels: int = 3) -> dict[str, torch.Tensor]:
    shapes = {
        "resnet": resnet([1] * 4, [64, 72, 80, 88], bottleneck=False, labels=labels),
        "convnext": convnext(layout, [1, 2, 1, 1], [8, 12, 16, 20], labels=labels),
        "vit": vit(layout, 2, 16, side=32, labels=labels),
    }[name]
    torch.manual_seed(0)
    return {name: torch.rand(shape) if shape else torch.tensor(5) for name, shape in shapes.items()}


def made(folder: Path, layout: str, tensors: dict[str, torch.Tensor], config: dict[str, Any], **said: Any) -> Path:
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}, folder / "w.pth")
    model = ModelConfig(config=config, weights="w.pth", mapping=layout, processor={"image_processor_type": "ViT"}, **said)
    return ready(model, folder, auto_class=said.pop("auto_class", "AutoModelForImageClassification"))


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_plain_transformers_loads_every_tensor_into_its_place(tmp_path: Path, layout: str) -> None:
    tensors = of_tiny(layout, "vit")
    folder = made(tmp_path, layout, tensors, TINY["vit"] | {"num_labels": 3})
    model, info = transformers.AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    state = model.state_dict()
    joined = next(tensor for name, tensor in tensors.items() if name.endswith(("qkv.weight", "in_proj_weight")))
    attention = "vit.layers.0.attention"
    assert torch.equal(torch.cat([state[f"{attention}.{each}_proj.weight"] for each in "qkv"]), joined)
    last = "blocks.1.mlp.fc2.bias" if layout == "timm" else "encoder.layers.encoder_layer_1.mlp.3.bias"
    assert torch.equal(state["vit.layers.1.mlp.fc2.bias"], tensors[last])


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_a_backbone_finds_its_place_inside_a_detector(tmp_path: Path, layout: str) -> None:
    net = TINY["resnet"] | {"out_features": ["stage4"]}
    detr = {
        "model_type": "detr", "backbone_config": net,
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 4,
    }  # fmt: skip
    config = architecture(detr)
    with torch.device("meta"):
        model = transformers.AutoModelForObjectDetection.from_config(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    given = of_tiny(layout, "resnet")
    found = in_transformers_names(given, layout, config, expected, tmp_path / "w.pth")
    inside = {name for name in expected if ".backbone." in f".{name}" and not name.endswith("num_batches_tracked")}
    assert inside
    assert inside <= found.keys()
    assert not any("classifier" in name for name in found), "the head of the file has no place"


@pytest.mark.parametrize(
    ("layout", "name", "changes", "config", "message"),
    [
        ("timm", "vit", {"dist_token": torch.zeros(1, 1, 16)}, {}, "dist_token is no tensor of a vit there"),
        ("torchvision", "resnet", {}, {"hidden_sizes": [64, 72, 80, 96]}, r"\[88, .*in the file and \[96"),
        (
            "timm",
            "resnet",
            {},
            {"model_type": "regnet"},
            "no map for regnet; there are for convnext, efficientnet, resnet, vit",
        ),
    ],
)
def test_what_is_of_no_layout_is_named(
    tmp_path: Path, layout: str, name: str, changes: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    said = config if "model_type" in config else TINY[name] | config
    with pytest.raises(ModelError, match=message):
        made(tmp_path, layout, of_tiny(layout, name) | changes, said | {"num_labels": 3})


def test_a_module_has_names_of_its_own() -> None:
    with pytest.raises(ValueError, match="mapping: timm is for a config"):
        ModelConfig(module={"_target_": "torch.nn.Linear"}, weights="w.pth", mapping="timm")
