"""What a genotype and an architecture distribution say of the health of a search; no state, no Trainer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_nas.arch import Decisions, Genotype
from lightning_nas.callbacks.sharpness_monitor import turned_sharp
from lightning_nas.metrics import entropy

__all__ = [
    "COLLAPSING",
    "HEALTHY",
    "RISKY",
    "CollapseRules",
    "Finding",
    "distribution_figures",
    "is_parameter_free",
    "is_skip",
    "judge",
    "operations",
]

SKIPS = frozenset({"skip_connect", "skip", "identity"})
"""Operations that pass their input on."""
PARAMETER_FREE = SKIPS | {"none", "noise", "zero"}
"""Operations without weights, and all whose name has the word pool. A skip counts whatever its stride."""
NO_OPERATIONS = frozenset({"no", "yes"})
"""Choices, numbers besides, of decisions that are not about operations."""

HEALTHY, RISKY, COLLAPSING = 0, 1, 2


@dataclass(frozen=True)
class CollapseRules:
    """When a search is in danger. The shares are of the operations that a cell other than a reduction cell keeps.

    Args:
        risky_skips: Share of skips at which a search is at risk. DARTS+ stops at two of eight (Liang et al., "DARTS+:
            Improved Differentiable Architecture Search with Early Stopping", 2019); some good cells have as many.
        collapsed_skips: Share of skips at which it collapses. The published normal cells of DARTS have at most four of
            eight (GDAS), a collapsed one five or more, in NAS-Bench-201 all six (Dong and Yang, ICLR 2020).
        parameter_free: Share of operations without weights at which it collapses; published normal cells: at most half.
        sharp_ratio: Growth of the dominant eigenvalue at which it collapses (Zela et al., "Understanding and
            Robustifying Differentiable Architecture Search", ICLR 2020).
        window: Evaluations in a mean of the eigenvalue, as there.
        delta: Evaluations between two means that are compared, as there.

    Raises:
        ValueError: If a share is not above zero, the ratio not above one, or a number of evaluations not positive.
    """

    risky_skips: float = 0.25
    collapsed_skips: float = 0.6
    parameter_free: float = 0.75
    sharp_ratio: float = 1.3
    window: int = 5
    delta: int = 4

    def __post_init__(self) -> None:
        shares = min(self.risky_skips, self.collapsed_skips, self.parameter_free)
        if shares <= 0 or self.sharp_ratio <= 1 or min(self.window, self.delta) < 1:
            raise ValueError(
                f"{self}: shares must be above 0 (above 1 for never), sharp_ratio above 1, window and delta at least 1"
            )


class Finding(NamedTuple):
    """How a search does.

    Args:
        level: `HEALTHY`, `RISKY` or `COLLAPSING`.
        reasons: Why, one for each rule that applies.
        sharp_since: The epoch since which the eigenvalue has grown, if it has.
    """

    level: int
    reasons: tuple[str, ...] = ()
    sharp_since: int | None = None


def is_skip(name: str) -> bool:
    """Whether an operation passes its input on, by its name."""
    return name.lower() in SKIPS


def is_parameter_free(name: str) -> bool:
    """Whether an operation has no weights, by its name.

    Example:
        >>> [is_parameter_free(name) for name in ("max_pool_3x3", "skip_connect", "Zero", "sep_conv_3x3", "k3_e1")]
        [True, True, True, False, False]
    """
    return name.lower() in PARAMETER_FREE or "pool" in name.lower()


def operations(decisions: Decisions, genotype: Genotype) -> dict[str, list[str]]:
    """Group -> the operations that a genotype keeps; groups that choose inputs and the like are left out.

    Example:
        >>> from lightning_nas.spaces import load_genotype
        >>> space, genotype = load_genotype("darts_v2")
        >>> operations(space.decisions, genotype)["normal"].count("skip_connect")
        2
    """
    kept = {}
    for group, rows in decisions.items():
        if all(name.isdigit() or name in NO_OPERATIONS for row in rows for name in row.choices):
            continue
        kept[group] = [row.choices[k] for row in rows for k in genotype.picks.get(row.name, ())]
    return kept


def distribution_figures(mean: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, float]:
    """Entropy of each group, and the mean margin between the first and the second choice of its rows.

    Rows are scaled to sum one. A row with one open choice has margin one.

    Args:
        mean: Group -> expected weights ``(rows, choices)``.
        masks: Group -> which choices are open.

    Example:
        >>> mean, mask = torch.tensor([[0.5, 0.25, 0.25]]), torch.ones(1, 3, dtype=torch.bool)
        >>> distribution_figures({"cell": mean}, {"cell": mask})
        {'entropy/cell': 1.039..., 'margin/cell': 0.25}
    """
    figures = {}
    for group, weights in mean.items():
        rows = weights.detach().to("cpu", torch.double).masked_fill(~masks[group].cpu(), 0.0)
        rows = rows / rows.sum(dim=1, keepdim=True).clamp(min=1e-12)
        figures[f"entropy/{group}"] = float(entropy(rows))
        best = torch.nn.functional.pad(rows, (0, 1)).topk(2, dim=1).values
        figures[f"margin/{group}"] = float((best[:, 0] - best[:, 1]).mean())
    return figures


def judge(
    kept: Mapping[str, Sequence[str]], epochs: Sequence[int], values: Sequence[float], rules: CollapseRules, first: int
) -> Finding:
    """Apply the rules.

    Args:
        kept: Group -> operations of the present genotype.
        epochs: Epochs in which the eigenvalue was taken.
        values: The eigenvalues.
        rules: The rules.
        first: First epoch to which a growth of the eigenvalue may be traced back.

    Example:
        >>> judge({"normal": ["skip_connect"] * 5 + ["sep_conv_3x3"] * 3}, (), (), CollapseRules(), 0).reasons
        ('5 of 8 operations of the normal cell are skip_connect',)
    """
    level, reasons = HEALTHY, []
    for group, names in kept.items():
        if group.startswith("reduce") or not names:
            continue
        skips = Counter(filter(is_skip, names))
        free = sum(map(is_parameter_free, names))
        share, of = skips.total() / len(names), f"of {len(names)} operations of {_place(group)}"
        if share >= min(rules.risky_skips, rules.collapsed_skips):
            level = max(level, COLLAPSING if share >= rules.collapsed_skips else RISKY)
            reasons.append(f"{skips.total()} {of} are {' or '.join(skips)}")
        if free / len(names) >= rules.parameter_free:
            level = COLLAPSING
            reasons.append(f"{free} {of} have no parameters")
    earlier = turned_sharp(epochs, values, rules.sharp_ratio, rules.window, rules.delta, first)
    since = None if earlier is None else epochs[earlier]
    if since is not None:
        level = COLLAPSING
        reasons.append(f"the dominant eigenvalue has grown by more than {rules.sharp_ratio} since epoch {since}")
    return Finding(level, tuple(reasons), since)


def _place(group: str) -> str:
    kind = group.split("/")[0]
    return {"normal": "the normal cell", "cell": "the cell"}.get(kind, f"{group!r}")
