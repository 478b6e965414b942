"""What a network costs to run: parameters, operations, spikes, and the energy of computation and of data movement.

Source: Joint A-SNN section 5.4, tables 5 and 6; KDSNN table 3. The formulas stand in ``prices.FORMULAS`` and go out
with every result. Deviation: layers whose input is no spikes are priced as what they are, while the papers take every
layer but the first for binary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spikedistill.errors import UserError
from spikedistill.evaluation.accuracy import device_of
from spikedistill.evaluation.cost import BITS, Energy, Layer
from spikedistill.evaluation.counting import (
    ACTIVATION,
    NETWORK,
    NEURONS,
    NORMALISATION,
    OTHER,
    POOLING,
    WEIGHTED,
    Count,
    Counter,
)
from spikedistill.evaluation.inputs import SPARSE, SPIKES
from spikedistill.evaluation.prices import DEFAULT_PRICES, Prices, prices
from spikedistill.models.fuse import restore
from spikedistill.models.network import checked_network
from spikedistill.models.witness import copied
from spikedistill.spiking import compiling

_WAYS_IN = ("__iter__", "__getitem__", "epoch")
FLOPS = {NORMALISATION: 4, POOLING: 1}
"""Operations an element of what KDSNN counts beside multiply-accumulates."""


def energy(
    network: nn.Module,
    data: Any,
    *,
    constants: str | Prices = DEFAULT_PRICES,
    images: int | None = 256,
    batch_size: int = 32,
) -> Energy:
    """Measures what a network costs to run.

    The network itself is left alone: a copy without fused layers is measured, in eval mode, on the network's device.

    Args:
        network: an SNN of ``create_model`` or ``spikify``, or any ANN.
        data: images as the network takes them, ``[N, ...]`` (for sequences ``[T, N, ...]``, one batch); or a loader,
            any iterable of batches or (batch, labels), or a dataset, whose items may be sequences ``[T, ...]``.
        constants: a name in ``PRICES``, a list such as ``add=0.1,multiply=3.1``, or ``Prices``.
        images: how many images to measure at most; None takes all.
        batch_size: for data that are not in batches yet.

    Raises:
        UserError: no images, unknown constants, or an SNN that does not say its timesteps.
    """
    priced = prices(constants) if isinstance(constants, str) else constants
    checked_network(network)
    subject = restore(copied(network, "measured")).eval()
    counter = Counter(subject)
    timesteps = getattr(subject, "timesteps", None)
    if counter.neurons and timesteps is None:
        raise UserError(
            f"{type(network).__name__} holds neurons but has no attribute `timesteps`, so its operations cannot be "
            "counted by the step; give it one that can be set"
        )
    place = device_of(subject)
    measured, static = 0, None
    with _in_plain_operations():
        for batch in _batches(subject, data, batch_size):
            batch = batch.to(place)
            sequence = _is_sequence(subject, batch)
            dim = 1 if sequence else 0
            keep = batch.shape[dim] if images is None else min(batch.shape[dim], images - measured)
            if keep <= 0:
                break
            batch = batch.narrow(dim, 0, keep)
            if sequence:
                timesteps = batch.shape[0]
            if static is None:
                static = _one_pass(subject, counter, batch, sequence)
            with counter:
                subject(batch)
            measured += keep
    if static is None:
        raise UserError("there are no images to measure the energy on")
    return _priced(subject, static, counter.take(), timesteps, measured, priced)


@contextmanager
def _in_plain_operations() -> Iterator[None]:
    """No fused kernels: neither ours, nor torch's own for attention."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            compiling.choose("plain"),
            sdpa_kernel(SDPBackend.MATH),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _one_pass(network: nn.Module, counter: Counter, batch: Tensor, sequence: bool) -> dict[str, Count]:
    """The count of one image at one timestep, which says what one pass through each layer is."""
    timesteps = getattr(network, "timesteps", None)
    if timesteps is not None:
        network.timesteps = 1  # type: ignore[assignment]
    with counter:
        network(batch[:1, :1] if sequence else batch[:1])
    if timesteps is not None:
        network.timesteps = timesteps
    return counter.take()


def _is_sequence(network: nn.Module, batch: Tensor) -> bool:
    """Whether a batch has a time dimension of its own."""
    return getattr(network, "timesteps", None) is not None and batch.dim() == getattr(network, "_dims", 4) + 1


def _batches(network: nn.Module, data: Any, batch_size: int) -> Iterator[Tensor]:
    if isinstance(data, str | Path) or not any(hasattr(data, own) for own in _WAYS_IN):
        raise UserError(
            f"data must be images: a tensor, a Dataset or a loader, not {data!r:.60}; a run's are measured by "
            "`spikedistill energy RUN`"
        )
    if isinstance(data, Tensor):
        yield from (data,) if _is_sequence(network, data) else data.split(batch_size)
        return
    items = isinstance(data, torch.utils.data.Dataset)
    if items:
        data = torch.utils.data.DataLoader(data, batch_size)
    batches: Iterable[Any] = data.epoch(0) if hasattr(data, "epoch") else data
    for batch in batches:
        images = batch[0] if isinstance(batch, tuple | list) else batch
        # Items are sequences [T, ...] each, which DataLoader stacks to [N, T, ...].
        yield images.transpose(0, 1) if items and _is_sequence(network, images) else images


def _priced(
    network: nn.Module,
    static: dict[str, Count],
    counted: dict[str, Count],
    timesteps: int | None,
    images: int,
    priced: Prices,
) -> Energy:
    parameters = _parameters(network, counted)
    layers = [
        _layer(name, static.get(name, Count(row.kind)), row, parameters.pop(name, 0), timesteps, images, priced)
        for name, row in counted.items()
        if row.kind != POOLING
    ]
    layers += [
        Layer(name, OTHER, count, 0, 1, None, None, 0.0, 0.0, 0, 0.0, None, 0.0, 0.0, (0.0, 0.0))
        for name, count in parameters.items()
    ]
    flops = sum(row.macs + FLOPS.get(row.kind, 0) * row.elements for row in static.values())
    return Energy(timesteps, images, priced, tuple(layers), flops if timesteps is None else None)


def _layer(
    name: str, static: Count, row: Count, parameters: int, timesteps: int | None, images: int, priced: Prices
) -> Layer:
    weighted = row.kind in WEIGHTED
    spiking = timesteps is not None
    passes = round(row.macs / (static.macs * images)) if static.macs else (timesteps or 1)
    effective = row.macs / images * (row.inputs.rate if spiking and row.inputs.kind in SPARSE else 1.0)
    binary = spiking and row.inputs.kind == SPIKES
    accumulates, macs = (effective, 0.0) if binary else (0.0, effective)
    neurons = static.elements if row.kind in (NEURONS, ACTIVATION) else 0
    spikes = row.spikes / images
    bits = float(2 * neurons * BITS * (timesteps or 1)) + spikes
    return Layer(
        name=name,
        kind=row.kind,
        parameters=parameters,
        macs=static.macs,
        passes=passes,
        input=row.inputs.kind if weighted and spiking else None,
        input_rate=row.inputs.rate if weighted else None,
        accumulates=accumulates,
        multiply_accumulates=macs,
        neurons=neurons,
        spikes=spikes,
        firing_rate=row.spikes / row.elements if row.kind == NEURONS and row.elements else None,
        computation=priced.computation(accumulates + macs, macs),
        bits=bits,
        movement=priced.movement(bits),
    )


def _parameters(network: nn.Module, rows: dict[str, Count]) -> dict[str, int]:
    """Parameters by row: each belongs to its module's, or to that of the nearest module around it that has one."""
    found: dict[str, int] = {}
    for name, parameter in network.named_parameters():
        owner = own = name.rpartition(".")[0]
        while owner and owner not in rows:
            owner = owner.rpartition(".")[0]
        place = owner or (NETWORK if NETWORK in rows and not own else own or NETWORK)
        found[place] = found.get(place, 0) + parameter.numel()
    return found
