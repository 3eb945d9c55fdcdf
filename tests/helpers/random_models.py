"""Random classifiers of every family: the numbers that they are made of, as strategies of Hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    CLIPConfig,
    CLIPForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    IJepaConfig,
    IJepaForImageClassification,
    PreTrainedModel,
    SiglipConfig,
    SiglipForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTMSNConfig,
    ViTMSNForImageClassification,
)

from tests.helpers import zoo

pytest.importorskip("hypothesis")
from hypothesis import strategies as st


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers that a model is made of."""

    num_heads: int
    head_dim: int
    num_layers: int
    intermediate_size: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    num_labels: int
    extra: dict[str, Any]

    @property
    def width(self) -> dict[str, int]:
        return {
            "hidden_size": self.num_heads * self.head_dim,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
        }

    @property
    def plain(self) -> dict[str, Any]:
        """Arguments of the configuration of a plain encoder."""
        height, width = self.patch_size
        patch_size = height if height == width else self.patch_size
        sizes = {"image_size": self.image_size, "patch_size": patch_size}
        return {**self.width, "intermediate_size": self.intermediate_size, **sizes, "num_labels": self.num_labels}

    @property
    def dino(self) -> dict[str, Any]:
        plain = {name: value for name, value in self.plain.items() if name != "intermediate_size"}
        return {**plain, "image_size": self.image_size[0], "mlp_ratio": 2, **self.extra}

    @property
    def two_towers(self) -> dict[str, Any]:
        """Arguments where the vision part has a configuration of its own, which takes squares only."""
        vision = {name: value for name, value in self.plain.items() if name != "num_labels"}
        vision["image_size"] = self.image_size[0]
        return {"vision_config": vision, "text_config": zoo.TEXT, "num_labels": self.num_labels}


BEIT_FLAGS = ("use_relative_position_bias", "use_shared_relative_position_bias", "use_mean_pooling")


@dataclass(frozen=True)
class Family:
    """How models of a family are made of a shape.

    Attributes:
        build: From a shape.
        square_images: Whether it takes no others.
        square_patches: Whether it takes no others.
        extra: Strategies of what only this family's configuration has.
    """

    build: Callable[[Shape], PreTrainedModel]
    square_images: bool = False
    square_patches: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "vit": Family(lambda s: zoo.build(ViTForImageClassification, ViTConfig(**s.plain))),
    "vit_msn": Family(lambda s: zoo.build(ViTMSNForImageClassification, ViTMSNConfig(**s.plain))),
    "deit": Family(lambda s: zoo.build(DeiTForImageClassification, DeiTConfig(**s.plain))),
    "deit_teacher": Family(lambda s: zoo.build(DeiTForImageClassificationWithTeacher, DeiTConfig(**s.plain))),
    "beit": Family(
        lambda s: zoo.build(BeitForImageClassification, BeitConfig(**s.plain, **s.extra)),
        square_patches=True,
        extra={name: st.booleans() for name in BEIT_FLAGS},
    ),
    "beit_absolute": Family(
        lambda s: zoo.build(
            BeitForImageClassification, BeitConfig(**s.plain, **s.extra, use_absolute_position_embeddings=True)
        ),
        square_images=True,
        square_patches=True,
        extra={name: st.booleans() for name in BEIT_FLAGS},
    ),
    "dinov2": Family(
        lambda s: zoo.build(Dinov2ForImageClassification, Dinov2Config(**s.dino)),
        square_images=True,
        extra={"use_swiglu_ffn": st.booleans()},
    ),
    "dinov2_registers": Family(
        lambda s: zoo.build(Dinov2WithRegistersForImageClassification, Dinov2WithRegistersConfig(**s.dino)),
        square_images=True,
        extra={"num_register_tokens": st.integers(1, 4), "use_swiglu_ffn": st.booleans()},
    ),
    "siglip": Family(
        lambda s: zoo.build(SiglipForImageClassification, SiglipConfig(**s.two_towers)),
        square_images=True,
        square_patches=True,
    ),
    "clip": Family(
        lambda s: zoo.build(CLIPForImageClassification, CLIPConfig(**s.two_towers, projection_dim=8)),
        square_images=True,
        square_patches=True,
    ),
    "ijepa": Family(lambda s: zoo.build(IJepaForImageClassification, IJepaConfig(**s.plain))),
}


@st.composite
def shapes(draw: Any, family: Family) -> Shape:
    """Draw the numbers of a model that the family can do, of few tokens: the oracle loops over pairs of them."""
    rows, cols = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    patch = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    if family.square_patches:
        patch = patch[0], patch[0]
        cols = rows if family.square_images else cols
    elif family.square_images:  # a side of rows * cols * factor pixels, which both divide
        factor = draw(st.integers(1, 2))
        patch = cols * factor, rows * factor
    num_heads = draw(st.integers(1, 5))
    return Shape(
        num_heads=num_heads,
        head_dim=draw(st.integers(-(-6 // num_heads), 10)),  # layer norms of fewer channels leave nothing but signs
        num_layers=draw(st.integers(1, 4)),
        intermediate_size=draw(st.integers(4, 40)),
        image_size=(rows * patch[0], cols * patch[1]),
        patch_size=patch,
        num_labels=draw(st.integers(1, 6)),
        extra={name: draw(strategy) for name, strategy in family.extra.items()},
    )
