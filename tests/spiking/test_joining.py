"""Kernels write each step where it belongs: what Inductor makes of them off the CPU, as far as a CPU can show it."""

import re

import pytest
import torch
from torch import Tensor
from torch._inductor import config
from torch._inductor.utils import run_and_get_code

from spikedistill.spiking import compiling, fused, joining, layer_kernels, make_surrogate
from spikedistill.spiking.joining import joined
from spikedistill.spiking.layer_kernels import Plan
from spikedistill.spiking.recurrence import Dynamics

DYNAMICS = Dynamics(0.5, False, False, True, make_surrogate("triangle"))


@pytest.fixture(params=["cpu", "elsewhere"])
def place(request, monkeypatch):
    """Inductor's way of the CPU, and ours for other devices, whose loops are compiled for the CPU all the same."""
    torch._dynamo.reset()
    if request.param == "elsewhere":
        monkeypatch.setattr(joining, "stacked_on", lambda device: False)
    return request.param


def compiled(function, *tensors: Tensor, inline: bool = False) -> tuple[list[Tensor | None], str]:
    """What a kernel returns, and its code, with shapes that may change from call to call."""
    joining.teach_inductor()
    options = {"realize_opcount_threshold": 1000, "realize_reads_threshold": 1000} if inline else None
    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, tensor.dim() - 1)
    with (
        config.patch(fx_graph_cache=False),
        torch._functorch.config.patch(enable_autograd_cache=False),
        torch.no_grad(),
    ):
        out, (code,) = run_and_get_code(torch.compile(function, fullgraph=True, options=options), *tensors)
    return list(out) if isinstance(out, tuple) else [out], code


def loops(code: str) -> int:
    """How many times a kernel goes through all neurons."""
    return len(re.findall(r"for\(int64_t x0=", code))


def buffers(code: str) -> list[str]:
    """What is allocated: the dtypes of results, and of what goes through memory on the way to them."""
    return re.findall(r"= empty_strided_\w+\(.*torch\.(\w+)\)", code)


@pytest.mark.parametrize("timesteps", [1, 2, 9])
def test_it_is_a_stack(timesteps, place):
    def halves(x: Tensor) -> Tensor:
        return joined([0.5 * step for step in x])

    x = torch.randn(timesteps, 3, 40)
    assert torch.equal(halves(x), 0.5 * x)
    assert torch.equal(compiled(halves, x)[0][0], 0.5 * x)


def test_bytes_too(place):
    past = torch.randint(0, 256, (3, 2, 4, 2, 8), dtype=torch.uint8)
    ours, _ = compiled(layer_kernels.winners, past)
    assert torch.equal(ours[0], layer_kernels.winners(past))


@pytest.mark.parametrize("timesteps", [2, 4])
def test_forward_is_one_loop_that_writes_nothing_but_spikes(timesteps, place):
    def forward(x: Tensor) -> Tensor:
        return fused.forward(x, 0.5, dynamics=DYNAMICS, timesteps=timesteps)

    x = torch.randn(timesteps, 4096, dtype=torch.bfloat16)
    ours, code = compiled(forward, x)
    assert torch.equal(ours[0], forward(x))
    assert loops(code) == 1 and buffers(code) == ["bfloat16"]


@pytest.mark.parametrize("timesteps", [2, compiling.INLINE_STEPS])
def test_backward_is_one_loop_that_writes_nothing_but_gradients(timesteps, place):
    plan = Plan(DYNAMICS, timesteps, (True, False), 0.5, torch.bfloat16)

    def backward(*tensors: Tensor) -> tuple[Tensor, Tensor | None]:
        return layer_kernels.backward(*tensors, plan=plan)

    value, residual, grad = torch.randn(3, timesteps, 128, 64, dtype=torch.bfloat16)
    tensors = [value, *torch.rand(3, 64), residual, grad]
    ours, code = compiled(backward, *tensors, inline=True)
    torch.testing.assert_close(ours[0], backward(*tensors)[0])
    assert loops(code) == 1 and buffers(code) == ["bfloat16"]


def test_which_backward_kernels_are_compiled_without_intermediate_results():
    gpu = torch.empty(0, device="meta")
    assert fused.inlined(gpu, compiling.INLINE_STEPS) and not fused.inlined(gpu, compiling.INLINE_STEPS + 1)
    assert not fused.inlined(torch.empty(0), 2)
