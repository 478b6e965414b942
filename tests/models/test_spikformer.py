"""The spiking transformer and its ordinary twin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spikedistill import UserError, create_model
from spikedistill.models.spikformer import Attention, AttentionProduct


def test_attention_is_the_sum_of_values_weighted_by_similarity():
    torch.manual_seed(0)
    n, heads, d, side = 2, 3, 4, 3
    q, k, v = (torch.rand(n, heads * d, side, side, dtype=torch.float64) for _ in range(3))
    result = AttentionProduct(heads)(q, k, v)
    tokens = side * side
    for image in range(n):
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            qs, ks, vs = (z[image, part].reshape(d, tokens) for z in (q, k, v))
            for i in range(tokens):
                expected = sum(((qs[:, i] @ ks[:, j]) * vs[:, j] for j in range(tokens)), torch.zeros(d).double())
                torch.testing.assert_close(result[image, part].reshape(d, tokens)[:, i], expected / tokens)


def test_attention_looks_everywhere(small, images):
    """One pixel moves every token: what a convolution of this reach cannot do."""
    ann = small("spikformer-tiny").eval()
    attention = ann.get_submodule("encoders.0.attention")
    assert isinstance(attention, Attention)
    x = torch.rand(1, 16, 6, 6, requires_grad=True)
    attention.product(attention.q(x), attention.k(x), attention.v(x))[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum((0, 1)) > 0).all()


def test_attention_of_spikes_is_spikes(small, images):
    snn = small("spikformer-tiny", spiking=True)
    seen = {}
    for path, module in snn.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _module, args, path=path: seen.__setitem__(path, args[0]))
        if isinstance(module, AttentionProduct):
            module.register_forward_pre_hook(lambda _module, args, path=path: seen.__setitem__(path, torch.cat(args)))
    snn(images)
    for path, x in seen.items():
        if path == "embed.0.conv":
            continue
        assert torch.equal(x, x.round()), path
        if path.endswith(("product", "proj.conv", "fc2.conv")) or path.startswith("embed"):
            assert x.max() == 1, path
    assert 0 < seen["encoders.1.attention.proj.conv"].mean() < 0.9, "the attention fires, and not always"


@pytest.mark.parametrize(
    ("stem", "side", "maps"),
    [("cifar", 32, [(8, 32), (16, 16), (16, 8)]), ("imagenet", 64, [(2, 64), (4, 32), (8, 16), (16, 8), (16, 4)])],
)
def test_a_stage_is_a_resolution(stem, side, maps, small):
    network = small("spikformer-tiny", stem=stem)
    shapes = {}
    for stage, path in network.stages.items():
        network.get_submodule(path).register_forward_hook(
            lambda _module, _inputs, output, stage=stage: shapes.__setitem__(stage, tuple(output.shape[1:3]))
        )
    network(torch.randn(2, 3, side, side))
    assert list(shapes.values()) == maps
    assert list(shapes) == list(network.stages)


@pytest.mark.parametrize(("width", "heads"), [(12, 4), (16, 3)])
def test_widths_that_cannot_be_divided_are_refused(width, heads):
    with pytest.raises(UserError, match="multiple of 8 and of its"):
        create_model("spikformer-tiny", num_classes=2, in_channels=1, width=width, heads=heads)
