"""Names of torchvision's and timm's image classifiers become those of transformers: `model.mapping: torchvision` or `timm`.

The maps are of the files as published (torchvision.models, timm.models): `resnet*`, `convnext*`, `vit_*`, `efficientnet_b*`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from finespun.errors import ModelError, listed
from finespun.models.conversion.weights import WRAPPERS, Shapes, Tensors

Rules = Mapping[str, Callable[..., str]]  # beginning of a name -> what stands there instead, given the numbers in it

QKV = "qkv_proj."  # in a new name: queries, keys and values in one tensor
HEAD = "classifier."
INNER = (
    "cls_token", "position_embeddings", "embedder.embedder.convolution.weight", "embeddings.patch_embeddings.weight",
    "embeddings.convolution.weight",
)  # fmt: skip

RESNET: Rules = {  # the same in both
    r"conv1\.": lambda: "embedder.embedder.convolution.",
    r"bn1\.": lambda: "embedder.embedder.normalization.",
    r"layer(\d+)\.(\d+)\.conv(\d+)\.": lambda s, n, c: f"encoder.stages.{s - 1}.layers.{n}.layer.{c - 1}.convolution.",
    r"layer(\d+)\.(\d+)\.bn(\d+)\.": lambda s, n, c: f"encoder.stages.{s - 1}.layers.{n}.layer.{c - 1}.normalization.",
    r"layer(\d+)\.(\d+)\.downsample\.0\.": lambda s, n: f"encoder.stages.{s - 1}.layers.{n}.shortcut.convolution.",
    r"layer(\d+)\.(\d+)\.downsample\.1\.": lambda s, n: f"encoder.stages.{s - 1}.layers.{n}.shortcut.normalization.",
    r"fc\.": lambda: f"{HEAD}1.",
}


def _in_block(stage: int, layer: int, part: str) -> str:
    return f"encoder.stages.{stage}.layers.{layer}.{part}"


COUNTED = re.compile(r"encoder\.blocks\.(\d+)\.(\d+)\.")  # stage and place in it, which transformers counts through
PARTS = [  # of a block of EfficientNet from bottom to top; blocks of the first stage have no expansion
    "expansion.expand_conv.", "expansion.expand_bn.", "depthwise_conv.depthwise_conv.", "depthwise_conv.depthwise_norm.",
    "squeeze_excite.reduce.", "squeeze_excite.expand.", "projection.project_conv.", "projection.project_bn.",
]  # fmt: skip


def _efficientnet(block: str, first: str, names: str, names_of_first: str) -> Rules:
    """Returns rules for blocks, where `block` is the beginning of a name before the number of its stage."""
    found: dict[str, Callable[..., str]] = {}
    for old, new in zip(names_of_first.split(), PARTS[2:], strict=True):
        found[rf"{block}({first})\.(\d+)\.{re.escape(old)}\."] = lambda s, n, new=new: f"encoder.blocks.{s}.{n}.{new}"
    for old, new in zip(names.split(), PARTS, strict=True):
        found[rf"{block}(?!{first}\.)(\d)\.(\d+)\.{re.escape(old)}\."] = lambda s, n, new=new: f"encoder.blocks.{s}.{n}.{new}"
    return found


LAYOUTS: dict[str, dict[str, Rules]] = {
    "torchvision": {
        "resnet": RESNET,
        "convnext": {  # stages are features 1, 3, 5, 7; between them what halves the sides
            r"features\.0\.0\.": lambda: "embeddings.patch_embeddings.",
            r"features\.0\.1\.": lambda: "embeddings.layernorm.",
            r"features\.([246])\.(\d)\.": lambda s, n: f"encoder.stages.{s // 2}.downsampling_layer.{n}.",
            r"features\.([1357])\.(\d+)\.layer_scale": lambda s, n: _in_block(s // 2, n, "layer_scale_parameter"),
            r"features\.([1357])\.(\d+)\.block\.0\.": lambda s, n: _in_block(s // 2, n, "dwconv."),
            r"features\.([1357])\.(\d+)\.block\.2\.": lambda s, n: _in_block(s // 2, n, "layernorm."),
            r"features\.([1357])\.(\d+)\.block\.3\.": lambda s, n: _in_block(s // 2, n, "pwconv1."),
            r"features\.([1357])\.(\d+)\.block\.5\.": lambda s, n: _in_block(s // 2, n, "pwconv2."),
            r"classifier\.0\.": lambda: "layernorm.",
            r"classifier\.2\.": lambda: HEAD,
        },
        "vit": {
            r"class_token": lambda: "embeddings.cls_token",
            r"encoder\.pos_embedding": lambda: "embeddings.position_embeddings",
            r"conv_proj\.": lambda: "embeddings.patch_embeddings.projection.",
            r"encoder\.layers\.encoder_layer_(\d+)\.ln_1\.": lambda n: f"layers.{n}.layernorm_before.",
            r"encoder\.layers\.encoder_layer_(\d+)\.ln_2\.": lambda n: f"layers.{n}.layernorm_after.",
            r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_": lambda n: f"layers.{n}.attention.{QKV}",
            r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.": lambda n: f"layers.{n}.attention.o_proj.",
            r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.": lambda n: f"layers.{n}.mlp.fc1.",
            r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.": lambda n: f"layers.{n}.mlp.fc2.",
            r"encoder\.ln\.": lambda: "layernorm.",
            r"heads\.head\.": lambda: HEAD,
        },
        "efficientnet": {
            r"features\.0\.0\.": lambda: "embeddings.convolution.",
            r"features\.0\.1\.": lambda: "embeddings.batchnorm.",
            r"features\.8\.0\.": lambda: "encoder.top_conv.",
            r"features\.8\.1\.": lambda: "encoder.top_bn.",
            **_efficientnet(
                r"features\.",
                "1",
                "block.0.0 block.0.1 block.1.0 block.1.1 block.2.fc1 block.2.fc2 block.3.0 block.3.1",
                "block.0.0 block.0.1 block.1.fc1 block.1.fc2 block.2.0 block.2.1",
            ),
            r"classifier\.1\.": lambda: HEAD,
        },
    },
    "timm": {
        "resnet": RESNET,
        "convnext": {
            r"stem\.0\.": lambda: "embeddings.patch_embeddings.",
            r"stem\.1\.": lambda: "embeddings.layernorm.",
            r"stages\.(\d+)\.downsample\.(\d)\.": lambda s, n: f"encoder.stages.{s}.downsampling_layer.{n}.",
            r"stages\.(\d+)\.blocks\.(\d+)\.gamma": lambda s, n: _in_block(s, n, "layer_scale_parameter"),
            r"stages\.(\d+)\.blocks\.(\d+)\.conv_dw\.": lambda s, n: _in_block(s, n, "dwconv."),
            r"stages\.(\d+)\.blocks\.(\d+)\.norm\.": lambda s, n: _in_block(s, n, "layernorm."),
            r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc(\d)\.": lambda s, n, c: _in_block(s, n, f"pwconv{c}."),
            r"head\.norm\.": lambda: "layernorm.",
            r"head\.fc\.": lambda: HEAD,
        },
        "vit": {
            r"cls_token": lambda: "embeddings.cls_token",
            r"pos_embed": lambda: "embeddings.position_embeddings",
            r"patch_embed\.proj\.": lambda: "embeddings.patch_embeddings.projection.",
            r"blocks\.(\d+)\.norm1\.": lambda n: f"layers.{n}.layernorm_before.",
            r"blocks\.(\d+)\.norm2\.": lambda n: f"layers.{n}.layernorm_after.",
            r"blocks\.(\d+)\.attn\.qkv\.": lambda n: f"layers.{n}.attention.{QKV}",
            r"blocks\.(\d+)\.attn\.proj\.": lambda n: f"layers.{n}.attention.o_proj.",
            r"blocks\.(\d+)\.mlp\.fc(\d)\.": lambda n, c: f"layers.{n}.mlp.fc{c}.",
            r"norm\.": lambda: "layernorm.",
            r"head\.": lambda: HEAD,
        },
        "efficientnet": {
            r"conv_stem\.": lambda: "embeddings.convolution.",
            r"bn1\.": lambda: "embeddings.batchnorm.",
            r"conv_head\.": lambda: "encoder.top_conv.",
            r"bn2\.": lambda: "encoder.top_bn.",
            **_efficientnet(
                r"blocks\.",
                "0",
                "conv_pw bn1 conv_dw bn2 se.conv_reduce se.conv_expand conv_pwl bn3",
                "conv_dw bn1 se.conv_reduce se.conv_expand conv_pw bn2",
            ),
            r"classifier\.": lambda: HEAD,
        },
    },
}


def in_transformers_names(tensors: Tensors, layout: str, config: Any, expected: Shapes, path: Path) -> Tensors:
    """Returns the tensors of a file as transformers names them; inside a larger net, without the file's head.

    Args:
        tensors: as `layout`, one of LAYOUTS, names them.
        layout: `torchvision` or `timm`.
        config: of the model; of a larger net, its `backbone_config` says which architecture the file is.
        expected: names and shapes of the whole model's tensors.
        path: of the file, for messages.

    Raises:
        ModelError: there is no map for the architecture, a tensor is none of the layout, or its shape is another.
    """
    inner = getattr(config, "backbone_config", None) or config
    known = LAYOUTS[layout]
    if inner.model_type not in known:
        raise ModelError(
            f"{path}: model.mapping: {layout}: there is no map for {inner.model_type}; there are for {listed(known)}; take"
            " mapping: by_order, or map by prefixes"
        )
    rules = [(re.compile(pattern), become) for pattern, become in known[inner.model_type].items()]
    found: Tensors = {}
    for name, tensor in _unwrapped(tensors).items():
        new = _renamed(name, rules)
        if new is None:
            raise ModelError(
                f"{path}: model.mapping: {layout}: {name} is no tensor of a {inner.model_type} there; it is of another layout"
                " or a variant; look at the file's names, or map by prefixes"
            )
        if QKV in new:
            parts = tensor.chunk(3)
            found |= {new.replace(QKV, f"{each}_proj."): part for each, part in zip("qkv", parts, strict=True)}
        else:
            found[new] = tensor.flatten() if new.endswith("layer_scale_parameter") else tensor
    return _placed(_counted_through(found), expected, path)


def padded_alike(config: Any, layout: str) -> None:
    """Has an EfficientNet pad its depthwise convolutions on both sides, as torchvision's does, and not as TensorFlow's.

    What is left is the first convolution: the net sees an image moved by one pixel. timm has nets of both kinds, and its
    `depthwise_padding` stays as it is.
    """
    if layout == "torchvision" and config.model_type == "efficientnet":
        config.depthwise_padding = list(range(config.num_hidden_layers))


def _counted_through(tensors: Tensors) -> Tensors:
    """Returns blocks that are numbered by stage and place, numbered from the first to the last."""
    places = {(int(m[1]), int(m[2])) for m in map(COUNTED.match, tensors) if m}
    numbers = {place: number for number, place in enumerate(sorted(places))}

    def counted(match: re.Match[str]) -> str:
        return f"encoder.blocks.{numbers[int(match[1]), int(match[2])]}."

    return {COUNTED.sub(counted, name): tensor for name, tensor in tensors.items()}


def _unwrapped(tensors: Tensors) -> Tensors:
    """Takes off what a wrapper put before all names, `module.` or `model.`."""
    first = {name.partition(".")[0] for name in tensors}
    if len(first) > 1 or not first <= {*WRAPPERS}:
        return tensors
    return _unwrapped({name.partition(".")[2]: tensor for name, tensor in tensors.items()})


def _renamed(name: str, rules: list[tuple[re.Pattern[str], Callable[..., str]]]) -> str | None:
    for pattern, become in rules:
        match = pattern.match(name)
        if match:
            return become(*map(int, match.groups())) + name[match.end() :]
    return None


def _placed(tensors: Tensors, expected: Shapes, path: Path) -> Tensors:
    """Returns tensors with what stands before their names in a model, of which they may be a part."""
    first = next((name for name in tensors if name.endswith(INNER)), None)
    prefix = next((name.removesuffix(first) for name in expected if first and name.endswith(first)), None)
    if prefix is None:
        raise ModelError(f"{path}: model.mapping: the model has no {first or 'first layer'}; correct model.config")
    larger = not any(name.startswith(HEAD) for name in expected)
    found: Tensors = {}
    for name, tensor in tensors.items():
        new = name if name.startswith(HEAD) else prefix + name
        if larger and new not in expected and name.startswith((HEAD, "layernorm.")):
            continue  # the head of the file, where the model has others on its backbone
        if new in expected and expected[new] != tensor.shape and not name.startswith(HEAD):
            raise ModelError(
                f"{path}: model.mapping: {new} is {list(tensor.shape)} in the file and {list(expected[new])} in the model;"
                " correct model.config"
            )
        found[new] = tensor
    return found
