"""Says where a number that is not finite came from: the step is done once more and every layer looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikedistill.engine.checkpoint import checkpoints, latest_checkpoint
from spikedistill.engine.finite import Found, plain
from spikedistill.errors import TrainingFailed, UserError
from spikedistill.methods.base import Method

BAD_PIXELS = "and so are pixels of its images"


@contextmanager
def told_of_a_batch_of_one() -> Iterator[None]:
    """Says what to do where a BatchNorm has a single value per channel, of which there is no variance.

    Raises:
        UserError: so it is.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "a BatchNorm has one value per channel to take its statistics of, for there is one image in a batch; "
            "set batch_size to at least 2 for each process"
        ) from error


def failure(
    found: Found,
    method: Method,
    folder: Path,
    batches: int,
    autocast: Callable[[], AbstractContextManager[Any]],
    moved_on: bool,
) -> TrainingFailed:
    """The sentence that ends a run at numbers that are not finite.

    Args:
        found: what and where.
        method: what is trained.
        folder: the run folder.
        batches: of an epoch.
        autocast: the training's precision.
        moved_on: whether the optimiser has used these numbers already, so that only the last checkpoint's weights are
            worth looking at.
    """
    at = f"epoch {found.epoch + 1}, batch {found.batch + 1} of {batches}"
    stands = bool(checkpoints(folder / "checkpoints"))
    try:
        if not found.inputs:
            raise UserError("no step to look at")
        if moved_on:
            state = latest_checkpoint(folder / "checkpoints")
            method.load_state_dict(state["method"] if state else {})
        layer = first_layer(method, found.inputs, autocast)
    except (RuntimeError, UserError):  # no checkpoint, no memory for it: the step's own message must not be lost
        layer = ""
    if layer == BAD_PIXELS:  # no learning rate mends those
        return TrainingFailed(
            f"{found.what} in {at}, {layer}; look for them in the data, such as a division by zero in a transform, or "
            "leave such batches out with on_bad_numbers=skip"
        )
    go_on = "go on from the last checkpoint with --resume on_bad_numbers=skip, or " if stands else ""
    return TrainingFailed(
        f"{found.what} in {at}{layer and f', {layer}'}; {go_on}begin anew with a smaller optimizer.lr or clip=1.0"
    )


def first_layer(method: Method, inputs: tuple[Any, ...], autocast: Callable[[], AbstractContextManager[Any]]) -> str:
    """Repeats a step and says which layer's output, or whose gradient, is the first that is not finite.

    Args:
        method: its modules and its teacher's are looked at; their gradients are left alone.
        inputs: of the step.
        autocast: the training's precision.

    Returns:
        Such as ``first in the output of layer 'body.conv1'``; empty where the step shows nothing this time.
    """
    if not _sound(inputs[0]):
        return BAD_PIXELS
    for name, tensor in [*method.named_parameters(), *method.named_buffers()]:
        if tensor.is_floating_point() and not _sound(tensor):
            return f"'{plain(name)}' itself is no longer finite"
    watched = {plain(name): module for name, module in method.named_modules() if name not in ("", "student")}
    if method.teacher is not None:
        watched |= {f"{name} (teacher)": module for name, module in method.teacher.network.named_modules() if name}
    outputs: list[str] = []
    gradients: list[str] = []
    handles = [module.register_forward_hook(_recorder(name, outputs, gradients)) for name, module in watched.items()]
    try:
        with autocast():
            losses = method(*inputs)[1]
        return f"first in the output of layer '{outputs[0]}'" if outputs else _first_gradient(method, losses, gradients)
    finally:
        for handle in handles:
            handle.remove()


def _first_gradient(method: nn.Module, losses: dict[str, Tensor], recorded: list[str]) -> str:
    parameters = [p for p in method.parameters() if p.requires_grad]
    for name, loss in losses.items():
        if not loss.requires_grad:
            continue
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        if recorded:
            return f"first in the gradient of loss term '{name}' behind layer '{recorded[0]}'"
        if not all(_sound(gradient) for gradient in found if gradient is not None):
            return f"in the gradient of loss term '{name}'"
    return ""


def _recorder(name: str, outputs: list[str], gradients: list[str]) -> Callable[..., None]:
    """A hook that notes the layer where finite inputs make an output that is not, and so for gradients."""

    def record(gradient: Tensor) -> None:
        if not _sound(gradient):
            gradients.append(name)

    def look(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        left = _tensors(output)
        if all(map(_sound, _tensors(inputs))) and not all(map(_sound, left)):
            outputs.append(name)
        for tensor in left:
            if tensor.requires_grad:
                tensor.register_hook(record)

    return look


def _tensors(value: Any) -> list[Tensor]:
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _sound(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())
