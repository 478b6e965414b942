"""BatchNorm statistics measured anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from spikedistill import LIF, create_model
from spikedistill.models.elastic import ElasticResNet
from spikedistill.models.subnets import SPACE
from spikedistill.search import Meter, recalibrate


class Fixed:
    """The same three batches of different images each epoch."""

    def __init__(self) -> None:
        images = torch.randn(18, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        scaled = images * torch.linspace(0.5, 2.0, 18)[:, None, None, None]
        self.batches = list(zip(scaled.split(6), (torch.arange(18) % 5).split(6), strict=True))

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches[start:])


@pytest.fixture
def network() -> ElasticResNet:
    torch.manual_seed(0)
    neuron = LIF(threshold=0.5)
    built = create_model(
        "elastic-resnet", num_classes=5, in_channels=3, width=4, spiking=True, timesteps=2, neuron=neuron
    )
    assert isinstance(built, ElasticResNet)
    return built.eval()


@pytest.mark.parametrize("count", [2, 3, 9])
def test_statistics_are_the_mean_over_the_batches(count: int, network: ElasticResNet) -> None:
    plain, data = network.extract(SPACE.smallest), Fixed()
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    recalibrate(plain, data, count)
    used = data.batches[:count]
    # What enters the stem's BatchNorm and a later one, by hand in float64, each batch's own statistics in between.
    entered: dict[str, list[Tensor]] = {"bn1": [], "layer2.0.bn1": []}
    hooks = [
        plain.get_submodule(name).register_forward_pre_hook(
            lambda _module, inputs, name=name: entered[name].append(inputs[0].double())
        )
        for name in entered
    ]
    plain.train()
    with torch.no_grad():
        state = {key: value.clone() for key, value in plain.state_dict().items()}
        for images, _ in used:
            plain(images)
        plain.load_state_dict(state)
    for hook in hooks:
        hook.remove()
    for name, inputs in entered.items():
        norm = plain.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
        variance = torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0)
        assert torch.allclose(norm.running_mean.double(), mean, atol=1e-5)
        assert torch.allclose(norm.running_var.double(), variance, rtol=1e-4)
        assert norm.num_batches_tracked == len(used)
    changed = {key for key, value in plain.state_dict().items() if not torch.equal(value, before[key])}
    assert all(key.rsplit(".")[-1] in ("running_mean", "running_var", "num_batches_tracked") for key in changed)


def test_modes_and_momenta_are_left_as_they_were(network: ElasticResNet) -> None:
    plain = network.extract(SPACE.smallest).eval()
    plain.get_submodule("layer3").train()
    modes = [module.training for module in plain.modules()]
    recalibrate(plain, Fixed(), 1)
    assert [module.training for module in plain.modules()] == modes
    assert {module.momentum for module in plain.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}
    assert all(parameter.grad is None for parameter in plain.parameters())


def test_a_fitted_subnet_is_the_supernet_with_its_statistics(network: ElasticResNet) -> None:
    data, before = Fixed(), {key: value.clone() for key, value in network.state_dict().items()}
    subnet = SPACE.sample(torch.Generator().manual_seed(4))
    meter = Meter(network, data, data, 5)
    plain, images = meter.fitted(subnet), data.batches[0][0]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    network.choose(subnet)
    with torch.no_grad():
        assert not torch.allclose(network(images), plain(images), atol=1e-3), "inherited statistics do not fit"
        for key, value in plain.state_dict().items():
            network.state_dict()[key][tuple(slice(size) for size in value.shape)] = value
        assert torch.equal(network(images), plain(images))


def test_a_subnet_is_measured_after_it_was_fitted(network: ElasticResNet) -> None:
    data, subnet = Fixed(), SPACE.smallest
    measured = Meter(network, data, data, 5, batches=2)(subnet)
    plain = network.extract(subnet)
    recalibrate(plain, data, 2)
    with torch.no_grad():
        hits = sum(int((plain(images).argmax(-1) == labels).sum()) for images, labels in data.batches)
    assert measured.accuracy == pytest.approx(100 * hits / 18)
    assert measured.parameters == sum(parameter.numel() for parameter in plain.parameters())
    assert measured.seconds > 0
