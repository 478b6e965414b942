"""BatchNorm statistics of a network, measured anew (BigNAS, Yu et al. 2020, and slimmable networks before it)."""

from __future__ import annotations

from itertools import islice

import torch
from torch import nn

from spikedistill.engine.loop import Batches
from spikedistill.models.modes import modes_of, set_modes


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Batches, count: int) -> None:
    """Replaces every BatchNorm's running mean and variance by the plain average over the first batches of an epoch.

    A subnet's layers see other inputs than those of the network it was cut from, so the statistics that it inherits do
    not fit it; its weights stay as they are. Labels are not looked at.

    Args:
        network: a plain network, such as an extracted subnet; its modes stay as they are.
        batches: images as in evaluation, not augmented, from the training part.
        count: how many batches to take, fewer where there are no more.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    modes = modes_of(network)
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average: every batch counts the same
        norm.train()
    for images, _ in islice(batches.epoch(0), count):
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    set_modes(modes)
