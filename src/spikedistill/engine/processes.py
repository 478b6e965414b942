"""Training on several processes: the first one writes, and all of them agree on whether to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from spikedistill.errors import TrainingFailed, UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def first_alone(fabric: Fabric, action: Callable[[], object]) -> None:
    """Lets the first process do what only one may do; if that is refused, all are refused.

    Raises:
        UserError, TrainingFailed: in every process, as ``action`` raised it in the first.
    """
    refusal: tuple[bool, str] | None = None
    own: UserError | TrainingFailed | None = None
    if fabric.is_global_zero:
        try:
            action()
        except (UserError, TrainingFailed) as error:
            own, refusal = error, (isinstance(error, UserError), str(error))
    if fabric.world_size > 1:
        refusal = fabric.broadcast(refusal)
    if own is not None:
        raise own
    if refusal is not None:
        raise (UserError if refusal[0] else TrainingFailed)(refusal[1])


@contextmanager
def together(fabric: Fabric, folder: Path) -> Iterator[None]:
    """Turns what a process group says when one of its processes has gone into a sentence.

    Raises:
        TrainingFailed: another process died; the last checkpoint is where the run goes on.
    """
    try:
        yield
    except RuntimeError as error:
        # gloo has no type of its own for it, NCCL has
        if fabric.world_size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise TrainingFailed(
            f"another process of the run '{folder}' has died, so this one stops; go on from the last checkpoint with "
            "--resume, on any number of devices"
        ) from error


def any_process(fabric: Fabric, flag: bool) -> bool:
    """Whether the flag is set in any of the processes; each must ask at the same place."""
    if fabric.world_size == 1:
        return flag
    value = torch.tensor(float(flag), device=fabric.device)
    return bool(fabric.all_reduce(value, reduce_op="sum") > 0)  # type: ignore[operator]


def added_up(fabric: Fabric, sums: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Sums over all processes; each must have the same names."""
    if fabric.world_size == 1:
        return sums
    names = sorted(sums)
    values = torch.stack([sums[name].to(fabric.device, torch.float64) for name in names])
    total = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    by_name = dict(zip(names, total.unbind(), strict=True))
    return {name: by_name[name] for name in sums}


def own_part(value: torch.Tensor) -> torch.Tensor:
    """What this process has of a tensor that is shared out (``strategy: fsdp``); other tensors as they are."""
    return value.to_local() if hasattr(value, "to_local") else value  # type: ignore[operator]


def leads() -> bool:
    """Whether this is the process that speaks: the only one, or the first."""
    return not dist.is_available() or not dist.is_initialized() or dist.get_rank() == 0
