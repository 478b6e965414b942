"""A spiking network as an ONNX file: all T steps unrolled, from images (or an encoded sequence) to the mean logits."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.export.about import About
from spikedistill.export.compare import Agreement, Answers, batch_dim, encoded
from spikedistill.export.record import plain_copy
from spikedistill.models.activation import layers_of
from spikedistill.models.network import Network
from spikedistill.models.twin import Twin
from spikedistill.spiking import LIF

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

LIMIT = 2**31 - 2**20
"""Bytes of weights that one ONNX file can hold (protobuf's two gigabytes)."""


class Unrolled(nn.Module):
    """A neuron in operators that ONNX has; without gradients."""

    def __init__(self, neuron: LIF) -> None:
        super().__init__()
        self.decay = float(torch.as_tensor(neuron.decay).detach())
        self.threshold, self.dynamics = neuron.threshold, neuron.dynamics

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for current in x.unbind(0):
            h = self.decay * v + current
            fired = h > self.threshold if self.dynamics.strict else h >= self.threshold
            s = fired.to(x.dtype)
            v = h - self.threshold * s if self.dynamics.soft_reset else h * (1.0 - s)
            spikes.append(s)
        return torch.stack(spikes)


class Rescaled(nn.Module):
    """A BatchNorm with its running statistics, rounded where torch rounds: ``a x + b`` once, behind both operations.

    As a BatchNorm it would be folded into the convolution before it, whose sums then round in other places; a potential
    on the brink of a threshold falls on its other side, and a spike more or less is fired.

    Args:
        norm: in evaluation mode.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None
        black = torch.zeros(1, norm.num_features, 8, 8)  # what torch makes of the four vectors shows in its answers

        def answer(pixels: Tensor, mean: Tensor, bias: Tensor | None) -> Tensor:
            return F.batch_norm(pixels, mean, variance, norm.weight, bias, False, 0.0, norm.eps)[0, :, 0, 0].detach()

        self.register_buffer("factor", answer(black + 1.0, torch.zeros_like(mean), None).double())
        self.register_buffer("shift", answer(black, mean, norm.bias).double())

    def forward(self, x: Tensor) -> Tensor:
        pixels = (1,) * (x.dim() - 2)
        wide = x.double() * self.factor.view(-1, *pixels) + self.shift.view(-1, *pixels)
        return wide.to(x.dtype)


def rescale(network: nn.Module) -> None:
    """Puts ``Rescaled`` in the place of every BatchNorm that has running statistics."""
    for path, module in list(network.named_modules()):
        if isinstance(module, NORMS) and type(module) in NORMS and module.running_mean is not None:
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, Rescaled(module))


def require_onnx() -> None:
    """Refuses where what writes and runs ONNX is missing.

    Raises:
        UserError: it is.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX files need the package {error.name}: pip install 'spikedistill[chips]'") from None


def onnx_bytes(network: nn.Module, images: Tensor, about: About) -> bytes:
    """The contents of a network's ONNX file: input ``images``, output ``logits``, any batch size, T fixed.

    Args:
        network: spiking, of ``create_model`` or ``spikify``; it stays as it is.
        images: at least one, as the network takes them.
        about: what the file says beside the graph.

    Raises:
        UserError: no spiking network, one that ONNX cannot hold, or a package that is missing.
    """
    require_onnx()
    plain = plain_copy(network)
    if sum(value.numel() * value.element_size() for value in plain.state_dict().values()) > LIMIT:
        raise UserError("the network's weights are more than the two gigabytes that an ONNX file can hold")
    dim = batch_dim(plain, images)
    images = images.float().cpu()
    example = encoded(plain, torch.cat([images.narrow(dim, 0, 1)] * 2, dim))
    rescale(plain)
    for spike in layers_of(plain).values():
        spike.neuron = Unrolled(spike.neuron)  # type: ignore[assignment]
    with torch.no_grad(), _quietly():
        try:
            program = torch.onnx.export(
                plain,
                (example,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({batch_dim(plain, example): torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # the exporter raises many kinds, and all say what of the network it cannot do
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"the network cannot be written as ONNX: {lines[0]}") from None
    assert program is not None
    proto = program.model_proto
    for key, value in about.metadata().items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, str(value.tolist() if isinstance(value, np.ndarray) else value)
    return proto.SerializeToString()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter prints, logs and warns about what is no business of whoever exports."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def session_of(content: bytes) -> Any:
    """The file's contents, ready to run by onnxruntime on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@torch.no_grad()
def compare_logits(network: Network | Twin, session: Any, images: Tensor, rows: int = 50) -> Agreement:
    """Runs the network and the file (by onnxruntime) on the same images, or the same encoded sequences.

    Args:
        network: the spiking network, on the CPU, in evaluation mode.
        session: of the file.
        images: at least one, or sequences.
        rows: images a call.
    """
    answers, dim = Answers(), batch_dim(network, images)
    for part in images.split(rows, dim):
        batch = encoded(network, part)
        ours = network(batch)
        theirs = torch.from_numpy(np.asarray(session.run(["logits"], {"images": batch.contiguous().numpy()})[0]))
        answers.add(ours, theirs)
    return Agreement(images.shape[dim], answers.same, None, {}, answers.largest, answers.close)
