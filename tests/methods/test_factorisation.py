"""Shared factors: they reproduce the weights they start from, in few products, and are trained as the formula says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spikedistill import create_model
from spikedistill.methods.factorisation import FactorGroup, SharedFactors, factorisable

LAYERS = {
    "1x1": nn.Conv2d(6, 9, 1),
    "3x3": nn.Conv2d(8, 8, 3, padding=1),
    "3x5": nn.Conv2d(4, 6, (3, 5)),
    "strided": nn.Conv2d(8, 16, 3, 2, 1),
    "down-sampling": nn.Conv2d(8, 16, 1, 2),
    "narrowing": nn.Conv2d(16, 4, 3),
    "stem": nn.Conv2d(3, 16, 7, 2, 3),
    "grouped": nn.Conv2d(8, 12, 3, groups=4),
    "linear": nn.Linear(16, 10),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_factors_reproduce_the_weights(kind: str) -> None:
    weight = LAYERS[kind].weight
    for twin in SharedFactors({"weight": weight}).compose():
        assert twin["weight"].shape == weight.shape
        assert twin["weight"].is_contiguous()
        assert torch.allclose(twin["weight"], weight, rtol=0, atol=1e-5)


def test_a_kernel_entry_is_u_s_v() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(5, 3, 3, 2) for _ in range(2)]
    group = FactorGroup(["a", "b"], weights, twins=2)
    with torch.no_grad():
        group.singular.copy_(torch.randn_like(group.singular))
    composed = group.compose()
    for layer in range(2):
        for i in range(3):
            for j in range(2):
                u, v = group.left[layer, 2 * i + j], group.right[layer, 2 * i + j]
                matrix = weights[layer][:, :, i, j]
                # Orthonormal singular vectors of this entry's own matrix.
                assert torch.allclose(u.T @ u, torch.eye(3), atol=1e-5)
                assert torch.allclose(u @ u.T @ matrix, matrix, atol=1e-5)
                for twin in range(2):
                    s = torch.diag(group.singular[layer, 2 * i + j, twin])
                    assert torch.allclose(composed[twin, layer][:, :, i, j], u @ s @ v, atol=1e-5)


def test_gradients_reach_the_shared_and_the_own_factors() -> None:
    torch.manual_seed(0)
    factors = SharedFactors({"w": torch.randn(6, 4, 3, 3)})
    group = factors.groups[0]
    assert isinstance(group, FactorGroup)
    ann, snn = factors.compose()
    snn["w"].square().sum().backward()
    assert group.singular.grad is not None and group.left.grad is not None
    assert torch.count_nonzero(group.singular.grad[:, :, 0]) == 0
    # d/ds of ||U diag(s) V||^2 is 2 s where U and V are orthonormal.
    assert torch.allclose(group.singular.grad[:, :, 1], 2 * group.singular[:, :, 1], atol=1e-4)
    own = group.left.grad.clone()
    factors.zero_grad()
    ann, snn = factors.compose()
    (ann["w"].square().sum() + snn["w"].square().sum()).backward()
    assert torch.allclose(group.left.grad, 2 * own, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "spikformer-tiny"])
def test_every_weight_of_a_network_comes_from_few_products(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_model(name, num_classes=10, in_channels=3, width=8)
    weights = factorisable(network)
    expected = {f"{p}.weight" for p, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert weights.keys() == expected
    factors = SharedFactors(weights)
    products, bmm = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: products.append(1) or bmm(a, b))
    ann, snn = factors.compose()
    assert len(products) == len({weight.shape for weight in weights.values()})
    assert ann.keys() == snn.keys() == expected
    for name, weight in weights.items():
        assert torch.allclose(ann[name], weight, rtol=0, atol=1e-5)
        assert torch.equal(ann[name], snn[name])


def test_the_number_of_factors_is_the_papers() -> None:
    """c_in^2 + c_out^2 + 2r per entry (section 4.3.1), the columns that no singular value meets left out."""
    factors = SharedFactors({"square": torch.randn(8, 8, 3, 3), "down": torch.randn(16, 8, 1, 1)})
    count = sum(p.numel() for p in factors.parameters())
    assert count == 9 * (8 * 8 + 8 * 8 + 2 * 8) + (16 * 8 + 8 * 8 + 2 * 8)


def test_a_weight_used_twice_is_factorised_once() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    network[2].weight = network[0].weight
    assert list(factorisable(network)) == ["0.weight"]
    assert list(factorisable(nn.Conv1d(2, 2, 3))) == ["weight"]
