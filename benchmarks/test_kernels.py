"""The kernels' times, kept by pytest-benchmark: `make kernels` runs this, saves it and compares it with the run before.

Not tests, and no part of `make test`: a time is compared by who reads it, on the machine that it was measured on.
"""

import pytest
import torch
from torch import Tensor

from spikedistill.models.fuse import FusedBatchNorm
from spikedistill.spiking import LIF, compiling
from spikedistill.spiking.bits import pack, unpack
from spikedistill.spiking.deferred import Spikes, settle
from spikedistill.spiking.rates import with_rate

T, B, C, SIDE = 4, 32, 64, 32


@pytest.fixture(autouse=True)
def fused():
    with compiling.choose("fused"):
        yield


def folded(dtype: torch.dtype = torch.float32, rows: int = T * B) -> Tensor:
    x = torch.randn(rows, C, SIDE, SIDE, dtype=dtype).to(memory_format=torch.channels_last)
    return x.requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("surrogate", ["triangle", "arctan"])
def test_neuron(benchmark, dtype, surrogate):
    neuron, x = LIF(surrogate=surrogate), folded(dtype).unflatten(0, (T, B)).detach().requires_grad_()
    upstream = torch.randn_like(x)
    benchmark(lambda: neuron(x).backward(upstream))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("pooled", [False, True], ids=["flat", "pooled"])
def test_batchnorm_and_neuron(benchmark, dtype, pooled):
    norm, neuron, x = FusedBatchNorm(C).train(), LIF(), folded(dtype)

    def layer() -> Tensor:
        spikes = Spikes.fired(norm(x), neuron.decay, neuron.dynamics, T, constant=False, keep_bits=False)
        out = spikes.pooled() if pooled else spikes
        assert out is not None
        return settle(out)

    upstream = torch.randn_like(layer())
    benchmark(lambda: layer().backward(upstream))


def test_packing(benchmark):
    spikes = (folded().detach() > 0.5).float()
    benchmark(lambda: unpack(pack(spikes)))


def test_rate(benchmark):
    x = folded(torch.bfloat16)
    upstream = torch.randn_like(x)
    rates = torch.randn_like(x[:B])

    def both() -> None:
        onward, rate = with_rate(x, T)
        torch.autograd.backward([onward, rate], [upstream, rates])

    benchmark(both)
