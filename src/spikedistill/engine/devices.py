"""Device, precision and processes: the Fabric that the loop runs on."""

from __future__ import annotations

import inspect
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spikedistill.errors import UserError, unknown

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FABRIC_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
PRECISIONS = ("auto", *FABRIC_PRECISION)


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 natively (AVX-512 BF16 or AMX)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_device(name: str) -> torch.device:
    """``auto`` to a GPU where CUDA has one, else the CPU; other names as torch knows them.

    Raises:
        UserError: no such device, or it is not at hand.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):  # Apple's has no float64, in which sums are kept
        raise UserError(f"no such device '{name}' (accepted: auto, cpu, cuda, cuda:N)")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device '{name}' was asked for, but torch {torch.__version__} sees no CUDA device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{name}' was asked for, but there are only cuda:0 to {torch.cuda.device_count() - 1}")
    return device


def at_hand(name: str) -> torch.device:
    """A device by name, or the best there is where that one is not: what a finished run was trained on binds nobody."""
    try:
        return resolve_device(name)
    except UserError:
        return resolve_device("auto")


def resolve_precision(name: str, device: torch.device) -> str:
    """``auto`` to ``bf16`` where the device computes it natively, else ``32``; other names as they are.

    Raises:
        UserError: unknown name.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == "16" and device.type == "cpu":
        raise UserError("precision 16 needs a GPU; a CPU has bf16 (precision=bf16, or auto) and 32")
    if name != "auto":
        return name
    if device.type == "cuda":  # older GPUs emulate it, slower than float32
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and cpu_has_bf16()
    return "bf16" if native else "32"


def check_shares(batch_size: int, processes: int) -> None:
    """Refuses a batch that processes cannot share evenly: their gradients are averaged as equals.

    Raises:
        UserError: it leaves a remainder.
    """
    if batch_size % processes:
        raise UserError(
            f"batch_size {batch_size} cannot be shared evenly by {processes} processes; choose a multiple of that"
        )


def check_sharding(strategy: str, precision: str, compile: bool) -> None:
    """Refuses what does not go with weights that are shared out.

    Raises:
        UserError: it was asked for together with ``strategy=fsdp``.
    """
    if strategy == "fsdp" and precision == "16":
        raise UserError("strategy=fsdp trains in 32 or bf16: a loss scaler would see a part of the gradients only")
    if strategy == "fsdp" and compile:
        raise UserError("strategy=fsdp puts weights together between steps of the network; leave compile=true out")


def keep_freed_memory() -> None:
    """Has glibc keep what a step frees for the next one, on a CPU (does nothing where there is no glibc).

    By default it gives large blocks back to the system, which clears them page by page when they are wanted again: in
    every step.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    trim_threshold, most_mapped = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX in malloc.h
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(most_mapped, 0)


def _data_parallel() -> Any:
    """DDP as this project's networks want it: BatchNorm's statistics agree already, and none needs to be sent."""
    from datetime import timedelta

    try:
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError:
        from lightning.fabric.strategies.ddp import DDPStrategy  # type: ignore[import-not-found,no-redef]

    # torch 2.13 has another name for it.
    known = inspect.signature(torch.nn.parallel.DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    # Channels-last weights have gradients of the same layout, which DDP's buckets have not; it tells at every start.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    keywords: dict[str, Any] = {buffers: False}
    return DDPStrategy(timeout=timedelta(minutes=10), **keywords)


def _sharded(processes: int) -> Any:
    """Weights shared out over all processes; ``sharding.Sharded`` has done it when Fabric gets the module."""
    from datetime import timedelta

    try:
        from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
    except ImportError:
        from lightning.fabric.strategies.model_parallel import (  # type: ignore[import-not-found,no-redef]
            ModelParallelStrategy,
        )

    return ModelParallelStrategy(
        lambda module, mesh: module,
        data_parallel_size=processes,
        tensor_parallel_size=1,
        timeout=timedelta(minutes=10),
    )


def make_fabric(
    device: torch.device, precision: str, devices: int = 1, nodes: int = 1, strategy: Any = "auto"
) -> Fabric:
    """A Fabric for a resolved device and precision.

    Args:
        device, precision: from ``resolve_device`` and ``resolve_precision``.
        devices: processes per node.
        nodes: machines.
        strategy: ``ddp``, ``fsdp`` (see ``sharding``) or ``auto``, which is ``ddp``; on one process there is nothing to
            share.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError:  # the same engine also ships inside the package `lightning`
        from lightning.fabric import Fabric  # type: ignore[import-not-found,no-redef]

    # Fabric announces precision and seed on the log; the run's summary says both.
    logging.getLogger(Fabric.__module__.partition(".")[0]).setLevel(logging.WARNING)
    if devices * nodes == 1:
        strategy = "auto"
    elif strategy in ("auto", "ddp"):
        strategy = _data_parallel()
    elif strategy == "fsdp":
        strategy = _sharded(devices * nodes)
    one_gpu = device.type == "cuda" and device.index is not None and devices == 1
    return Fabric(
        accelerator=device.type,
        devices=[device.index] if one_gpu else devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=FABRIC_PRECISION[precision],  # type: ignore[arg-type]
    )
