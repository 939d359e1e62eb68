"""MobileNetV2 as a backbone of detectors, which transformers has not: `backbone_config: {model_type: finespun_mobilenet_v2}`.

Whoever loads such a model without finespun's commands imports this module first; it registers the backbone with transformers.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoBackbone, AutoConfig, MobileNetV2Config, MobileNetV2Model
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput

BLOCKS = 16  # inverted residuals after the stem


class MobileNetV2BackboneConfig(BackboneConfigMixin, MobileNetV2Config):  # type: ignore[no-untyped-call]  # transformers' own
    """MobileNetV2's configuration, and which of `block1` to `block16` give feature maps.

    At an output stride of 32, the maps of block5, block12 and block16 have 32, 96 and 320 channels and strides of 8, 16 and 32.
    """

    model_type = "finespun_mobilenet_v2"

    def __post_init__(self, **kwargs: Any) -> None:
        self.stage_names = [f"block{number}" for number in range(1, BLOCKS + 1)]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]


class MobileNetV2Backbone(BackboneMixin, MobileNetV2Model):  # type: ignore[no-untyped-call]
    """MobileNetV2 up to its last block; what a classifier has above it is left out."""

    config_class = MobileNetV2BackboneConfig
    has_attentions = False

    def __init__(self, config: MobileNetV2BackboneConfig) -> None:
        super().__init__(config, add_pooling_layer=False)
        del self.conv_1x1  # nobody would use its output, and its weights would have no gradient
        blocks: Any = self.layer
        self.num_features = [block.reduce_1x1.convolution.out_channels for block in blocks]

    def forward(self, pixel_values: Any, **_: Any) -> BackboneOutput:  # type: ignore[override]
        """Returns `feature_maps`, each (rows, channels, height, width), the finest first."""
        hidden, found = self.conv_stem(pixel_values), []
        for name, block in zip(self.stage_names, self.layer, strict=True):
            hidden = block(hidden)
            if name in self.out_features:
                found.append(hidden)
        return BackboneOutput(feature_maps=tuple(found))


AutoConfig.register(MobileNetV2BackboneConfig.model_type, MobileNetV2BackboneConfig, exist_ok=True)
AutoBackbone.register(MobileNetV2BackboneConfig, MobileNetV2Backbone, exist_ok=True)
