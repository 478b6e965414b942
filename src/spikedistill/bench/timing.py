"""Timing in interleaved rounds: what else a machine does then hits every candidate alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Step = Callable[[], object]
WARM_UP = 3
TOGETHER = 10
"""Steps on a GPU between two waits for it: in training it is waited for neither, and the processor works ahead."""


@dataclass(frozen=True)
class Timing:
    """A candidate's seconds: the median, and the median of its ratio to the baseline round by round."""

    seconds: float
    ratio: float
    lowest: float
    highest: float


def interleaved(candidates: Mapping[str, Step], baseline: str, rounds: int, device: torch.device) -> dict[str, Timing]:
    """Times candidates in turn, ``rounds`` times over, each round beginning with another one."""
    names = list(candidates)
    for name in names:
        for _ in range(WARM_UP):
            candidates[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            seconds[name].append(_once(candidates[name], device))
    return {name: _timing(seconds[name], seconds[baseline]) for name in names}


def _once(step: Step, device: torch.device) -> float:
    """Seconds of a step: on a GPU, whose work is queued, the mean of several in a row."""
    steps = TOGETHER if device.type == "cuda" else 1
    _wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(device)
    return (time.perf_counter() - started) / steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timing(own: list[float], base: list[float]) -> Timing:
    ratios = sorted(a / b for a, b in zip(own, base, strict=True))
    return Timing(statistics.median(own), statistics.median(ratios), ratios[0], ratios[-1])


def saved_bytes(step: Step) -> int:
    """Bytes that a step keeps for its backward pass: each storage once, parameters left out."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def peak_bytes(step: Step, device: torch.device) -> int:
    """Most memory that a step held on a GPU beyond what was there before it."""
    _wait(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    _wait(device)
    return torch.cuda.max_memory_allocated(device) - before
