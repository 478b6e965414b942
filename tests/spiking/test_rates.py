"""A feature and its rate in one operation: the values and gradients of the plain mean."""

import pytest
import torch

from spikedistill.spiking import compiling
from spikedistill.spiking.rates import with_rate


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("used", ["both", "rate", "feature", "spread"])
def test_values_and_gradients_are_those_of_the_mean(monkeypatch, kernels, layout, used):
    monkeypatch.setattr(compiling, "call", lambda function, tensors, constants: function(*tensors, **constants))
    x = torch.randn(12, 4, 6, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()

    def loss(onward, rate):
        terms = {
            "both": onward.sin().sum() + rate.cos().sum(),
            "rate": rate.cos().sum(),
            "feature": onward.sin().sum(),
            "spread": onward.sin().sum() + rate.sum((2, 3)).cos().sum(),  # a gradient without memory of its own
        }
        return terms[used]

    (expected,) = torch.autograd.grad(loss(x, x.unflatten(0, (3, 4)).mean(0)), x)
    with compiling.choose(kernels):
        onward, rate = with_rate(x, 3)
        (grad,) = torch.autograd.grad(loss(onward, rate), x)
    assert torch.equal(onward, x)
    torch.testing.assert_close(rate, x.unflatten(0, (3, 4)).mean(0), rtol=0, atol=1e-15)
    assert kernels == "plain" or rate.is_contiguous(memory_format=layout)
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-14)


def test_the_compiled_kernels_agree_in_bfloat16():
    x = (torch.rand(8, 16, 8, 8) > 0.5).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    results = []
    for kernels in ("plain", "fused"):
        leaf = x.clone().requires_grad_()
        with compiling.choose(kernels):
            onward, rate = with_rate(leaf, 4)
            ((onward * 3).sum() + (rate * rate).sum()).backward()
        results.append((rate.detach(), leaf.grad))
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kernels_are", ["plain", "fused"])
def test_a_gradient_that_is_the_same_everywhere_has_its_shape(kernels_are: str) -> None:
    """What ``sum()`` hands back is one number, spread over the tensor without memory of its own."""
    x = torch.randn(8, 3, 4, 4, requires_grad=True)
    with compiling.choose(kernels_are):
        feature, mean = with_rate(x, 4)
        (feature.sum() + mean.square().sum()).backward()
    expected = 1 + 2 * x.detach().unflatten(0, (4, 2)).mean(0) / 4
    torch.testing.assert_close(x.grad, expected.repeat(4, 1, 1, 1))
