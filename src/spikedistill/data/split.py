"""Stratified parts of a data set: each class keeps its share."""

import torch
from torch import Tensor

from spikedistill.data.seeds import generator


def stratified_subset(labels: Tensor, count: int, seed: int, *, keep: int = 0, purpose: str = "subset") -> Tensor:
    """Draws ``count`` positions so that every class has its share, rounded by largest remainder.

    Args:
        labels: ``[N]`` int64, from 0.
        count: how many to draw; all when it is N or more.
        seed: decides which.
        keep: how many of each class must stay undrawn (then fewer than ``count`` may come back).
        purpose: draws for different purposes are independent of each other.

    Returns:
        Positions, ascending, int64.
    """
    total = labels.shape[0]
    counts = torch.bincount(labels)
    quotas = _quotas(counts, min(count, total)).minimum((counts - keep).clamp(min=0))
    shuffled = torch.randperm(total, generator=generator(seed, purpose))
    grouped = shuffled[torch.argsort(labels[shuffled], stable=True)]
    first = counts.cumsum(0) - counts
    rank = torch.arange(total) - first[labels[grouped]]
    return grouped[rank < quotas[labels[grouped]]].sort().values


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits positions into a part that stays and a part held out.

    Args:
        labels: ``[N]`` int64, from 0.
        share: of each class that is held out, in [0, 1); every class keeps at least one image.
        seed: decides which.

    Returns:
        Positions that stay, positions held out; both ascending, disjoint, together all.
    """
    count = round(share * labels.shape[0])
    held = stratified_subset(labels, count, seed, keep=1, purpose="validation")
    stays = torch.ones(labels.shape[0], dtype=torch.bool)
    stays[held] = False
    return stays.nonzero().flatten(), held


def _quotas(counts: Tensor, total: int) -> Tensor:
    """Shares ``total`` among the classes in proportion to ``counts`` by largest remainder (integers throughout)."""
    size = int(counts.sum())
    if size == 0:
        return torch.zeros_like(counts)
    quotas = counts * total // size
    remainders = counts * total - quotas * size
    missing = total - int(quotas.sum())
    quotas[torch.argsort(remainders, descending=True, stable=True)[:missing]] += 1
    return quotas
