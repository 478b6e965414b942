"""Thresholds from data: an SNN that is useful before any training ("conversion only").

Each neuron's threshold is a high percentile of the ANN's activations in its layer, for then its rate runs from 0 to 1
where the activation runs from 0 to nearly its maximum (Diehl et al. 2015; the percentile: Rueckauer et al. 2017,
"robust normalisation"). A neuron that starts with half its threshold rounds a rate to the nearest, one that starts at
zero rounds it down (Bu et al. 2022, "Optimal ANN-SNN conversion").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.models.folded import TwinSpike

SAMPLES = 2**17
LARGEST = 2**22  # torch.quantile takes at most 2**24 values
"""Activations a layer and batch that are looked at; more change a percentile by less than a threshold matters."""
PERCENTILE, START = 99.5, 0.5


@torch.no_grad()
def calibrate(
    network: nn.Module, batches: Tensor | Iterable[Any], percentile: float = PERCENTILE, start: float = START
) -> dict[str, float]:
    """Sets the thresholds of a spiking twin by its ANN's activations.

    Integrate-and-fire neurons with a soft reset (``IF(reset="soft")``) come closest to the ANN, and the closer the
    larger T. Weights stay as they are. The thresholds are part of the twin's state dict from then on, and an ANN's
    state dict still fits.

    Args:
        network: what ``spikify`` made; it is changed.
        batches: images as the network takes them: a batch ``[B, ...]``, or an iterable of batches or (batch, labels).
        percentile: in (0, 100]; of all activations of a layer, zeros included. With few timesteps it may be lower.
        start: the share of its threshold that a membrane holds before the first step (added to its current).

    Returns:
        The threshold of each neuron by path. A layer that is silent on all images, or is not part of
        evaluation, keeps the one it has.

    Raises:
        UserError: not a spiking twin, no images, or a percentile or start out of range.
    """
    spikes = {path: module for path, module in network.named_modules() if isinstance(module, TwinSpike)}
    if not spikes or not hasattr(network, "to_ann"):
        raise UserError(f"calibrate takes what spikify makes, not a {type(network).__name__}; spikify the ANN first")
    if not 0.0 < percentile <= 100.0:
        raise UserError(f"percentile must lie in (0, 100], not {percentile}")
    if not 0.0 <= start < 1.0:
        raise UserError(f"start must lie in [0, 1), not {start}")
    activations = _activations(network.to_ann().eval(), list(spikes), batches)  # pyright: ignore
    thresholds = {}
    for path, spike in spikes.items():
        values = activations[path]
        threshold = float(torch.quantile(values, percentile / 100.0)) or float(values.max())
        if threshold > 0.0:
            place = next(iter([*network.parameters(), *network.buffers()]), values)
            spike.balance = torch.tensor(threshold, device=place.device)
            spike.start = torch.tensor(start, device=place.device)
            thresholds[path] = threshold
    return thresholds


class _Sample:
    """Values drawn evenly from all that it is given, however many those are.

    Drawn at random: a stride would meet the same few columns of every map.
    """

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.kept: list[Tensor] = []
        self.thinned = 1

    def add(self, values: Tensor) -> None:
        """Takes up to ``SAMPLES`` of a batch's values; where too many have come together, half of all from then on."""
        wanted = min(values.numel(), SAMPLES) // self.thinned
        if wanted < values.numel():
            values = values[torch.randint(values.numel(), (wanted,), generator=self.random).to(values.device)]
        self.kept.append(values.clamp(min=0.0).cpu())
        if sum(map(len, self.kept)) > LARGEST:
            together = torch.cat(self.kept)
            self.kept = [together[torch.randperm(len(together), generator=self.random)[: len(together) // 2]]]
            self.thinned *= 2


def _activations(ann: nn.Module, paths: list[str], batches: Any) -> dict[str, Tensor]:
    """Samples of the ANN's activations, float32 on the CPU, by path."""
    found = {path: _Sample() for path in paths}

    def keep(path: str) -> Any:
        def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found[path].add(output.float().flatten())

        return record

    handles = [ann.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    place = next(ann.parameters(), None)
    try:
        for batch in [batches] if isinstance(batches, Tensor) else batches:
            images = batch[0] if isinstance(batch, tuple | list) else batch
            if not isinstance(images, Tensor):
                raise UserError(
                    f"calibration takes batches of images, or of (images, labels), and was given a "
                    f"{type(images).__name__}; pick them out: (batch['image'] for batch in loader)"
                )
            ann(images if place is None else images.to(place.device))
    finally:
        for handle in handles:
            handle.remove()
    if not any(sample.kept for sample in found.values()):
        raise UserError("calibration needs at least one batch of images")
    # A part of the network that exists in training alone sees no images here.
    return {path: torch.cat(sample.kept) if sample.kept else torch.zeros(1) for path, sample in found.items()}
