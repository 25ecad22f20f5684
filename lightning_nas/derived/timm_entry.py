"""Entries in timm's registry: ``nas_<name>`` for each published genotype, and ``nas_from_genotype`` for any."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timm.models import generate_default_cfgs, register_model

from lightning_nas.arch import Genotype
from lightning_nas.derived.network import DerivedNetwork, timm_cfg
from lightning_nas.spaces import GENOTYPES, NetworkSize

__all__: list[str] = ["default_cfgs"]  # register_model adds the entries

_NAMES = {"in_chans": "in_channels", "drop_path_rate": "drop_path"}
_KNOWN = ("num_classes", "channels", "cells", "stem", "auxiliary", "drop_rate", "global_pool", *_NAMES)

default_cfgs = generate_default_cfgs(
    {f"nas_{name}": timm_cfg(NetworkSize(channels=36, cells=20)) for name in (*GENOTYPES, "from_genotype")}
)


def _create(name: str, genotype: str | Path | Genotype, pretrained: bool, options: dict[str, Any]) -> DerivedNetwork:
    """A derived network from the arguments that `timm.create_model` passes."""
    cfg, overlay = options.pop("pretrained_cfg", None), options.pop("pretrained_cfg_overlay", None)
    options.pop("cache_dir", None)
    if pretrained or isinstance(cfg, str):
        raise ValueError(f"there are no pretrained weights of {name!r}; leave out the tag {cfg!r} and pretrained=True")
    unknown = sorted(set(options) - set(_KNOWN))
    if unknown:
        raise ValueError(f"{name!r} takes no {', '.join(unknown)}; allowed are {', '.join(_KNOWN)}")
    pool = options.pop("global_pool", "avg")
    network = DerivedNetwork(genotype, **{_NAMES.get(key, key): value for key, value in options.items()})
    if pool != "avg":
        network.reset_classifier(network.num_classes, pool)
    given = (cfg if isinstance(cfg, dict) else {}) | (overlay or {})
    network.pretrained_cfg = network.default_cfg = network.pretrained_cfg | {"architecture": name} | given
    return network


def _entry(name: str) -> Callable[..., DerivedNetwork]:
    """The entry of a published genotype."""

    def entry(pretrained: bool = False, **options: Any) -> DerivedNetwork:
        return _create(f"nas_{name}", name, pretrained, options)

    entry.__name__ = entry.__qualname__ = f"nas_{name}"
    entry.__doc__ = f"The network of the published genotype `{name}`; see `nas_from_genotype` for the arguments."
    return entry


@register_model
def nas_from_genotype(
    pretrained: bool = False, *, genotype: str | Path | Genotype = "", **options: Any
) -> DerivedNetwork:
    """The network of any genotype, for `timm.create_model`.

    Args:
        pretrained: Not available.
        genotype: A published name, the field's own text, JSON, or the path of a file with one of them.
        **options: ``num_classes`` (10 by default), ``in_chans``, ``drop_rate``, ``drop_path_rate``, ``global_pool``,
            and ``channels``, ``cells``, ``stem`` and ``auxiliary`` of `DerivedNetwork`.

    Raises:
        ValueError: If pretrained weights are asked for, an option is unknown, or the genotype is none.

    Example:
        >>> import timm
        >>> text = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"
        >>> network = timm.create_model("nas_from_genotype", genotype=text, channels=4, cells=1, num_classes=7)
        >>> network.num_features, network.get_classifier().out_features
        (16, 7)
    """
    if not genotype:
        raise ValueError("'nas_from_genotype' needs genotype=: a published name, a text, or the path of a file")
    return _create("nas_from_genotype", genotype, pretrained, options)


for _name in GENOTYPES:
    setattr(sys.modules[__name__], f"nas_{_name}", register_model(_entry(_name)))
