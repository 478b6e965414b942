"""BatchNorm, residual, neuron and pooling as one operation, against torch's own layers around the plain loop."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spikedistill.spiking import bits, compiling, fused_layer, make_surrogate
from spikedistill.spiking.fused_layer import Norm, Setting, Term
from spikedistill.spiking.recurrence import Dynamics, plain_run

TRIANGLE = Dynamics(1.0, False, False, False, make_surrogate("triangle"))
SOFT = Dynamics(0.9, True, True, True, make_surrogate("sigmoid", 0.4))
# which terms are normalised
PATTERNS = [(True,), (False,), (True, False), (True, True)]
DECAYS = {"number": 0.5, "layer": torch.tensor(0.4), "channel": torch.linspace(0.2, 0.9, 8).reshape(8, 1, 1)}


@pytest.fixture
def uncompiled(monkeypatch):
    def call(function, tensors, constants, inline=False):
        return function(*tensors, **constants)

    monkeypatch.setattr(compiling, "call", call)


def fast(values, norms, decay, dynamics, timesteps, constant, pooled) -> Tensor:
    terms = []
    for value, norm in zip(values, norms, strict=True):
        if norm is not None:
            running = [x.detach().clone() for x in norm]  # of the parameters' dtype, which the statistics then have
            mean, variance = torch.batch_norm_update_stats(value.detach(), *running, 0.1)
            norm = Norm(*norm, mean, variance, 1e-5, True)
        terms.append(Term(value, norm))
    return fused_layer.run(terms, decay, Setting(dynamics, timesteps, constant, pooled))


def slow(values, norms, decay, dynamics, timesteps, constant, pooled) -> Tensor:
    x = sum(
        value if norm is None else F.batch_norm(value, None, None, *norm, training=True)
        for value, norm in zip(values, norms, strict=True)
    )
    x = x.expand(timesteps, *x.shape) if constant else x.unflatten(0, (timesteps, -1))
    spikes = plain_run(x, decay, dynamics).flatten(0, 1)
    return F.max_pool2d(spikes, 2) if pooled else spikes


def results(function, pattern, decay, dynamics, timesteps, constant, pooled, dtype) -> list[Tensor]:
    """Spikes and the gradients of values, weights, biases and decay.

    What is given is exact in bfloat16 wherever ``dtype`` holds it; a norm's parameters are never less than float32.
    """
    generator = torch.Generator().manual_seed(timesteps)
    rows = 3 if constant else 3 * timesteps

    def leaf(x: Tensor, dtype: torch.dtype = dtype) -> Tensor:
        return x.bfloat16().to(dtype, copy=True).requires_grad_()

    values, norms = [], []
    for normalised in pattern:
        value = torch.randn(rows, 8, 4, 6, generator=generator)
        values.append(leaf(value.contiguous(memory_format=torch.channels_last)))
        affine = [torch.rand(8, generator=generator) + 0.5, torch.randn(8, generator=generator) * 0.2 + 0.4]
        norms.append([leaf(x, torch.promote_types(dtype, torch.float32)) for x in affine] if normalised else None)
    leaves = values + [x for norm in norms if norm for x in norm]
    if isinstance(decay, Tensor):
        decay = leaf(decay)
        leaves.append(decay)
    y = function(values, norms, decay, dynamics, timesteps, constant, pooled)
    return [y, *torch.autograd.grad(y, leaves, torch.randn(y.shape, generator=generator).bfloat16().to(dtype))]


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_every_layer_equals_its_parts(constant, pooled, uncompiled):
    cases = itertools.product(PATTERNS, DECAYS.values(), (TRIANGLE, SOFT), (1, 2, 5))
    for pattern, decay, dynamics, timesteps in cases:
        setting = (pattern, decay, dynamics, timesteps, constant, pooled)
        ours, theirs = (results(function, *setting, torch.float64) for function in (fast, slow))
        assert torch.equal(ours[0], theirs[0])
        assert ours[0].is_contiguous(memory_format=torch.channels_last)
        for a, b in zip(ours[1:], theirs[1:], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("pattern", "constant", "pooled", "dtype"),
    [
        ((True,), True, False, torch.float32),
        ((True, False), False, False, torch.float32),
        ((True,), False, True, torch.float32),
        ((True,), True, True, torch.bfloat16),
        ((True, True), False, False, torch.bfloat16),
    ],
)
def test_compiled(pattern, constant, pooled, dtype):
    setting = (pattern, 0.5, TRIANGLE, 2, constant, pooled)
    with compiling.choose("fused"):
        ours = results(fast, *setting, dtype)
    theirs = results(slow, *setting, torch.float64)
    assert ours[0].dtype == dtype and torch.equal(ours[0].double(), theirs[0])
    # The gradients between the kernels are in bfloat16 too.
    close = 1e-5 if dtype == torch.float32 else 2**-6
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=close, atol=close * float(b.abs().max()))


def test_pooled_gradient_goes_where_torch_sends_it(uncompiled):
    """All sixteen patterns of spikes in a window: to the first spike, or the first element where there is none."""
    windows = torch.tensor(list(itertools.product([0.0, 2.0], repeat=4))).reshape(16, 1, 2, 2)
    ours, theirs = windows.clone().requires_grad_(), windows.clone().requires_grad_()
    wide = Dynamics(1.0, False, False, False, make_surrogate("rectangle", 10.0))
    grad = torch.arange(1.0, 17.0).reshape(16, 1, 1, 1)
    fused_layer.run([Term(ours)], 0.5, Setting(wide, 1, False, True)).backward(grad)
    F.max_pool2d(plain_run(theirs.unsqueeze(0), 0.5, wide)[0], 2).backward(grad)
    assert torch.equal(ours.grad, theirs.grad)


def test_a_frozen_norm_passes_the_gradient_on(uncompiled):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 8, 4, 4, generator=generator, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last)
    weight, bias, mean, variance = (torch.rand(8, generator=generator, dtype=torch.float64) + 0.2 for _ in range(4))
    grads = []
    for ours in (True, False):
        leaves = [leaf.clone().requires_grad_() for leaf in (x, weight, bias)]
        if ours:
            norm = Norm(leaves[1], leaves[2], mean, variance, 1e-5, False)
            y = fused_layer.run([Term(leaves[0], norm)], 0.5, Setting(TRIANGLE, 3, False, False))
        else:
            y = F.batch_norm(leaves[0], mean, variance, *leaves[1:])
            y = plain_run(y.unflatten(0, (3, 2)), 0.5, TRIANGLE).flatten(0, 1)
        grads.append(torch.autograd.grad(y.square().sum() + y.sum(), leaves))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bits_come_back(dtype, layout, uncompiled):
    x = (torch.rand(3, 8, 5, 7) < 0.3).to(dtype).contiguous(memory_format=layout)
    packed = bits.pack(x)
    assert packed.packed.numel() * packed.packed.element_size() * 8 == x.numel()
    again = bits.unpack(packed)
    assert torch.equal(again, x) and again.stride() == x.stride() and again.dtype == dtype


def test_what_cannot_be_packed():
    assert not bits.packable(torch.zeros(3, 5))
    assert not bits.packable(torch.zeros(4, 8)[:, ::2])
    assert not bits.packable(torch.zeros(0))
    assert bits.packable(torch.zeros(4, 8))
