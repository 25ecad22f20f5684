"""Published genotypes of the DARTS space, by name."""

from __future__ import annotations

__all__ = ["GENOTYPES"]


def _cell(text: str) -> str:
    """``"sep3(0) skip(1) ..."`` -> the list of pairs as it is printed."""
    short = {
        "max": "max_pool_3x3",
        "avg": "avg_pool_3x3",
        "skip": "skip_connect",
        "sep3": "sep_conv_3x3",
        "sep5": "sep_conv_5x5",
        "dil3": "dil_conv_3x3",
        "dil5": "dil_conv_5x5",
    }
    pairs = [pair.rstrip(")").split("(") for pair in text.split()]
    return str([(short[op], int(source)) for op, source in pairs])


def _genotype(normal: str, reduce: str) -> str:
    return (
        f"Genotype(normal={_cell(normal)}, normal_concat=range(2, 6),"
        f" reduce={_cell(reduce)}, reduce_concat=range(2, 6))"
    )


GENOTYPES: dict[str, str] = {
    "darts_v1": _genotype(
        "sep3(1) sep3(0) skip(0) sep3(1) skip(0) sep3(1) sep3(0) skip(2)",
        "max(0) max(1) skip(2) max(0) max(0) skip(2) skip(2) avg(0)",
    ),
    "darts_v2": _genotype(
        "sep3(0) sep3(1) sep3(0) sep3(1) sep3(1) skip(0) skip(0) dil3(2)",
        "max(0) max(1) skip(2) max(1) max(0) skip(2) skip(2) max(1)",
    ),
    "pc_darts_cifar": _genotype(
        "sep3(1) skip(0) sep3(0) dil3(1) sep5(0) sep3(1) avg(0) dil3(1)",
        "sep5(1) max(0) sep5(1) sep5(2) sep3(0) sep3(3) sep3(1) sep3(2)",
    ),
    "pc_darts_imagenet": _genotype(
        "skip(1) sep3(0) sep3(0) skip(1) sep3(1) sep3(3) sep3(1) dil5(4)",
        "sep3(0) skip(1) dil5(2) max(1) sep3(2) sep3(1) sep5(0) sep3(3)",
    ),
    "p_darts": _genotype(
        "skip(0) dil3(1) skip(0) sep3(1) sep3(1) sep3(3) sep3(0) dil5(4)",
        "avg(0) sep5(1) sep3(0) dil5(2) max(0) dil3(1) dil3(1) dil5(3)",
    ),
    "drnas_cifar": _genotype(
        "sep3(0) sep5(1) sep3(1) sep3(2) skip(0) sep3(1) sep3(2) dil5(3)",
        "max(0) sep5(1) dil5(2) sep5(1) sep5(1) dil5(3) skip(4) sep5(1)",
    ),
    "drnas_imagenet": _genotype(
        "sep3(1) sep3(0) sep3(0) sep3(1) sep3(0) dil3(3) skip(0) sep3(1)",
        "max(0) sep3(1) sep3(0) skip(2) sep3(0) sep3(2) sep3(3) sep3(1)",
    ),
    "gdas_v1": _genotype(
        "skip(0) skip(1) skip(0) sep5(2) sep3(3) skip(0) sep5(4) sep3(3)",
        "sep5(0) sep3(1) sep5(2) sep5(1) dil5(2) sep3(1) sep5(0) sep5(1)",
    ),
}
"""Name -> the text of the genotype, in the space ``"darts"``."""
