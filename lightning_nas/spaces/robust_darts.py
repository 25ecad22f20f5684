"""The five spaces of RobustDARTS: the cells of DARTS with other candidates.

Zela, Elsken, Saikia, Marrakchi, Brox and Hutter, "Understanding and Robustifying Differentiable Architecture Search",
ICLR 2020. Small spaces in which plain DARTS finds degenerate cells.
"""

from __future__ import annotations

from lightning_nas.spaces.cell_space import OpLists
from lightning_nas.spaces.darts import DARTS_OPS, DARTSSpace

__all__ = ["ROBUST_DARTS_OPS", "robust_darts_space"]

_SHORT = {
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}


def _edges(text: str) -> tuple[tuple[str, ...], ...]:
    """``"skip dil3, ..."`` -> the candidates of each edge, target by target."""
    return tuple(tuple(_SHORT[op] for op in edge.split()) for edge in text.split(","))


ROBUST_DARTS_OPS: dict[str, OpLists] = {
    "s1": {
        "normal": _edges(
            "skip dil3, skip dil5,"
            " skip dil5, skip sep3, skip dil3,"
            " max skip, skip sep3, skip sep3, skip dil3,"
            " skip sep3, max skip, skip dil3, dil3 dil5, dil3 dil5"
        ),
        "reduce": _edges(
            "max avg, max dil3,"
            " max avg, max avg, skip dil5,"
            " max avg, max sep3, skip dil3, skip dil5,"
            " max avg, max avg, skip dil5, skip dil5, skip dil5"
        ),
    },
    "s2": ("skip_connect", "sep_conv_3x3"),
    "s3": ("none", "skip_connect", "sep_conv_3x3"),
    "s4": ("noise", "sep_conv_3x3"),
    "s5": DARTS_OPS,
}
"""Name -> candidates: in S1 two for each edge, in the others one list for all."""


def robust_darts_space(name: str) -> DARTSSpace:
    """One of the spaces ``"s1"`` to ``"s5"``.

    Raises:
        ValueError: If it is none of these.

    Example:
        >>> space = robust_darts_space("s1")
        >>> space.decisions["reduce"][1].choices
        ('max_pool_3x3', 'dil_conv_3x3')
    """
    if name not in ROBUST_DARTS_OPS:
        raise ValueError(f"unknown space {name!r}; the spaces of RobustDARTS are {', '.join(ROBUST_DARTS_OPS)}")
    return DARTSSpace(name, ROBUST_DARTS_OPS[name])
