"""How alike two networks' features are: linear CKA between every layer of one and every layer of the other.

Source: Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", equation 3 with a linear
kernel. It is 1 for features that differ by a rotation and a scale, and needs no equal number of channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.evaluation.maps import mean_features


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA of two sets of features of the same images.

    Args:
        first: ``[n, ...]``, what follows the first dimension is flattened.
        second: ``[n, ...]`` likewise, of any other size.

    Returns:
        Between 0 and 1; 0 where one of them is the same for all images.

    Raises:
        UserError: not the same images, or fewer than two.
    """
    if len(first) != len(second) or len(first) < 2:
        raise UserError(
            f"CKA compares features of the same images, at least two of them; not of {len(first)} and {len(second)}"
        )
    return _alignment(_gram(first), _gram(second))


def cka_matrix(
    first: nn.Module,
    second: nn.Module,
    images: Tensor,
    first_points: Mapping[str, str],
    second_points: Mapping[str, str],
    side: str = "after",
) -> list[list[float]]:
    """Linear CKA of every feature of one network (rows) with every feature of another (columns).

    Args:
        first, second: networks, each an ANN or SNN.
        images: ``[B, ...]``; a few hundred are enough.
        first_points, second_points: feature name to the path of the activation, as in ``network.stages``.
        side: ``before`` or ``after`` the activation.
    """
    grams = [
        [_gram(feature) for feature in mean_features(network, images, points, side).values()]
        for network, points in ((first, first_points), (second, second_points))
    ]
    return [[_alignment(one, other) for other in grams[1]] for one in grams[0]]


def _gram(features: Tensor) -> Tensor:
    """The images' inner products ``[n, n]`` in float64, with the mean image taken off."""
    flat = features.detach().flatten(1).double()
    flat = flat - flat.mean(0)
    return flat @ flat.t()


def _alignment(first: Tensor, second: Tensor) -> float:
    size = torch.linalg.norm(first) * torch.linalg.norm(second)
    return float((first * second).sum() / size) if float(size) > 0.0 else 0.0
