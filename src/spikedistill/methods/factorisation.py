"""Weights of twin networks that share their singular vectors (Joint A-SNN section 4.3, equations 11 to 13).

For every entry of a layer's kernel the ``c_out x c_in`` matrix is ``U diag(S) V``; U and V belong to all twins, S to
each alone. Layers of one shape lie in one tensor: the weights of all twins, of all such layers and all their kernel
entries come from a single batched product, with the twins stacked along the rows. A ResNet-18 takes 12 of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def factorisable(network: nn.Module, linear: bool = True) -> dict[str, Tensor]:
    """The weights that can be factorised, by name: those of convolutions and ``linear`` layers, each tensor once."""
    kinds = (*CONVOLUTIONS, nn.Linear) if linear else CONVOLUTIONS
    weights: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, module in network.named_modules():
        if isinstance(module, kinds) and id(module.weight) not in seen:
            seen.add(id(module.weight))
            weights[f"{path}.weight".removeprefix(".")] = module.weight
    return weights


class FactorGroup(nn.Module):
    """The factors of L layers of one shape.

    Args:
        names: of the L weights.
        weights: L tensors ``[c_out, c_in, *kernel]``; with k the number of kernel entries and r = min(c_out, c_in),
            ``left`` is ``[L, k, c_out, r]``, ``right`` ``[L, k, r, c_in]`` and ``singular`` ``[L, k, twins, r]``.
        twins: how many networks share them; all start from the same singular values.
    """

    def __init__(self, names: Sequence[str], weights: Sequence[Tensor], twins: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.kernel = tuple(weights[0].shape[2:])
        self.twins = twins
        entries = torch.stack([w.detach().flatten(2) if w.dim() > 2 else w.detach().unsqueeze(2) for w in weights])
        left, singular, right = torch.linalg.svd(entries.permute(0, 3, 1, 2), full_matrices=False)
        self.left, self.right = nn.Parameter(left.contiguous()), nn.Parameter(right.contiguous())
        self.singular = nn.Parameter(singular.unsqueeze(2).repeat(1, 1, twins, 1))

    def compose(self) -> Tensor:
        """The weights of all twins, ``[twins, L, c_out, c_in, *kernel]``, contiguous."""
        layers, entries, c_out, _ = self.left.shape
        scaled = self.left.unsqueeze(2) * self.singular.unsqueeze(3)
        product = torch.bmm(scaled.flatten(0, 1).flatten(1, 2), self.right.flatten(0, 1))
        product = product.view(layers, entries, self.twins, c_out, -1)
        weights = product.permute(2, 0, 3, 4, 1).contiguous()
        return weights.view(*weights.shape[:4], *self.kernel)


class SharedFactors(nn.Module):
    """Factors of twin networks' weights.

    Args:
        weights: the weights to start from, by name (``factorisable``).
        twins: how many networks share the singular vectors.
        undecayed: whether the optimiser's weight decay leaves the factors alone.
    """

    def __init__(self, weights: Mapping[str, Tensor], twins: int = 2, *, undecayed: bool = False) -> None:
        super().__init__()
        self.twins, self.undecayed = twins, undecayed
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name, weight in weights.items():
            shapes.setdefault(tuple(weight.shape), []).append(name)
        self.groups = nn.ModuleList(
            FactorGroup(names, [weights[name] for name in names], twins) for names in shapes.values()
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The weights that are factorised."""
        return tuple(name for group in self.groups for name in cast(FactorGroup, group).names)

    def compose(self) -> list[dict[str, Tensor]]:
        """The weights of each twin by name, with gradients to the factors."""
        twins: list[dict[str, Tensor]] = [{} for _ in range(self.twins)]
        for group in self.groups:
            assert isinstance(group, FactorGroup)
            for twin, weights in zip(twins, group.compose(), strict=True):
                twin.update(zip(group.names, weights.unbind(), strict=True))
        return twins
