"""Search spaces: `get_space` finds one by name, `load_genotype` reads a genotype of any of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lightning_nas.arch import Genotype
from lightning_nas.spaces.base import CellGraph, CellTopology, Space
from lightning_nas.spaces.cell_space import CellSpace
from lightning_nas.spaces.chain_space import ChainSpace
from lightning_nas.spaces.darts import DARTS_OPS, DARTSSpace
from lightning_nas.spaces.enas_macro import ENAS_MACRO_OPS, ENASMacroSpace
from lightning_nas.spaces.enas_micro import ENAS_MICRO_OPS, ENASMicroSpace
from lightning_nas.spaces.genotypes import GENOTYPES
from lightning_nas.spaces.mobile import FBNetSpace, ProxylessMobileSpace, ShuffleNetSpace
from lightning_nas.spaces.nasbench101 import NB101_OPS, NASBench101Space, to_nasbench101
from lightning_nas.spaces.nasbench201 import NB201_OPS, NASBench201Space
from lightning_nas.spaces.one_shot1 import ONE_SHOT1_OPS, ONE_SHOT1_PARENTS, NASBench1Shot1Space
from lightning_nas.spaces.robust_darts import ROBUST_DARTS_OPS, robust_darts_space
from lightning_nas.spaces.skeleton import CellNetwork, CellPlace, NetworkSize
from lightning_nas.spaces.small import SMALL_SPACES, SmallSpace

__all__ = [
    "DARTS_OPS",
    "ENAS_MACRO_OPS",
    "ENAS_MICRO_OPS",
    "GENOTYPES",
    "NB101_OPS",
    "NB201_OPS",
    "ONE_SHOT1_OPS",
    "ROBUST_DARTS_OPS",
    "SMALL_SPACES",
    "SPACES",
    "CellGraph",
    "CellNetwork",
    "CellPlace",
    "CellSpace",
    "CellTopology",
    "ChainSpace",
    "DARTSSpace",
    "ENASMacroSpace",
    "ENASMicroSpace",
    "FBNetSpace",
    "NASBench1Shot1Space",
    "NASBench101Space",
    "NASBench201Space",
    "NetworkSize",
    "ProxylessMobileSpace",
    "ShuffleNetSpace",
    "SmallSpace",
    "Space",
    "get_space",
    "load_genotype",
    "robust_darts_space",
    "to_nasbench101",
]

SPACES: dict[str, Callable[[], Space]] = {
    "darts": DARTSSpace,
    "darts_no_none": lambda: DARTSSpace("darts_no_none", DARTS_OPS[1:]),
    "nasbench101": NASBench101Space,
    "nasbench201": NASBench201Space,
    **{name: partial(robust_darts_space, name) for name in ROBUST_DARTS_OPS},
    **{name: partial(SmallSpace, name) for name in SMALL_SPACES},
    **{f"nasbench1shot1_{number}": partial(NASBench1Shot1Space, number) for number in ONE_SHOT1_PARENTS},
    "enas_micro": ENASMicroSpace,
    "enas_macro": ENASMacroSpace,
    "proxyless_mobile": ProxylessMobileSpace,
    "fbnet": FBNetSpace,
    "shufflenet": ShuffleNetSpace,
}
"""Name -> function that makes the space. A project adds its own with ``SPACES["mine"] = MySpace``."""


def get_space(space: str | Space) -> Space:
    """The space of a name; a space is returned as it is.

    Raises:
        ValueError: If no space has this name.

    Example:
        >>> get_space("nasbench201").relaxed
        ('cell',)
    """
    if isinstance(space, Space):
        return space
    if space not in SPACES:
        raise ValueError(f"unknown space {space!r}; known are {', '.join(SPACES)}; or pass a Space object")
    return SPACES[space]()


def load_genotype(source: str | Path) -> tuple[Space, Genotype]:
    """Read a genotype: a published name, the field's own text, JSON, or the path of a file that holds one.

    Args:
        source: For example ``"darts_v2"``, ``"|nor_conv_3x3~0|+..."``, ``"Genotype(...)"``, ``"genotype.json"``.

    Returns:
        The space and the genotype.

    Raises:
        ValueError: If it is none of these.

    Example:
        >>> space, genotype = load_genotype("darts_v2")
        >>> space.name
        'darts'
    """
    text = str(source).strip()
    if text in GENOTYPES:
        text = GENOTYPES[text]
    elif not (text.startswith(("|", "Genotype", "{")) or _ENAS.match(text)):
        path = Path(text)
        if not _is_file(path):
            raise ValueError(
                f"{text[:80]!r} is no published genotype ({', '.join(GENOTYPES)}), no genotype text and no file"
            )
        text = path.read_text(encoding="utf-8").strip()
    space = _space_of(text)
    return space, space.parse(text)


_ENAS = re.compile(r"(enas_\w{1,40}):\s")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or not one at all
        return False


def _space_of(text: str) -> Space:
    if text.startswith("|"):
        return get_space("nasbench201")
    if text.startswith("Genotype"):
        return get_space("darts")
    if match := _ENAS.match(text):
        return get_space(match[1])
    try:
        return get_space(str(json.loads(text)["space"]))
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"not a genotype: {text[:60]!r}; expected '|op~0|+...', 'Genotype(normal=...)' or JSON with space and picks"
        ) from None
