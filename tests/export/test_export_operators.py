"""What people write between two layers, in NIR's nodes: each network's file has the network's spikes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from roundtrip import settle, through_a_file
from torch import Tensor, nn

import spikedistill as sd
from spikedistill.export.compare import compare_spikes
from spikedistill.export.selection import layers, padded, selected, sliced
from spikedistill.models.activation import layers_of
from spikedistill.models.features import taps

SIDE = 9


class Net(nn.Module):
    """A network from a function of itself and of images."""

    def __init__(self, function: Callable[[Net, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv(c_in: int, c_out: int, **settings: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, **settings)


def head(net: Net, x: Tensor) -> Tensor:
    return net.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def first(net: Net, x: Tensor) -> Tensor:
    return F.relu(net.one(x))


def lambda_shortcut(net: Net, x: Tensor) -> Tensor:
    a = first(net, x)
    return head(net, F.relu(net.bn(net.two(a)) + F.pad(a[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))))


def dense(net: Net, x: Tensor) -> Tensor:
    a = first(net, x)
    b = F.relu(net.two(a))
    return head(net, F.relu(net.bn(torch.cat([a, b, x], 1))))


def cut(net: Net, x: Tensor) -> Tensor:
    a = first(net, F.pad(x, (0, 1, -1, 2)))[:, 1:, 2:, :-1]
    return head(net, F.relu(net.two(a)))


def halves(net: Net, x: Tensor) -> Tensor:
    a, b = first(net, x).chunk(2, 1)
    return head(net, torch.cat([F.relu(net.two(a)), b], 1))


def scaled(net: Net, x: Tensor) -> Tensor:
    a = first(net, x)
    return head(net, F.relu(0.5 * a + net.gain * net.two(a) - net.two(a) / 3 + 0.1) + 2 * a)


def normalised(net: Net, x: Tensor) -> Tensor:
    a = net.one((x - 0.2) / 0.7)
    return head(net, F.relu(net.bn(a)) - F.relu(a))


def pools(net: Net, x: Tensor) -> Tensor:
    x = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)
    return head(net, F.relu(net.two(F.max_pool2d(first(net, x), 2, 2, 1))))


def ragged_pools(net: Net, x: Tensor) -> Tensor:
    x = F.max_pool2d(first(net, x), 2, 2, ceil_mode=True)
    return head(net, F.relu(net.two(F.avg_pool2d(x, 2, ceil_mode=True))))


def pooled_pair(net: Net, x: Tensor) -> Tensor:
    return head(net, F.max_pool2d(torch.cat([first(net, x), F.relu(net.two(x))], 1), 3, 1, 1))


def sums(net: Net, x: Tensor) -> Tensor:
    a = first(net, x)
    return net.fc(torch.cat([a.mean((2, 3)), -(a.sum((-1, -2)) / 7)], 1))


def flat_means(net: Net, x: Tensor) -> Tensor:
    a, b = first(net, x), F.relu(net.two(x))
    return net.fc(torch.cat([a.flatten(2).mean(-1), b.view(b.size(0), b.size(1), -1).sum(dim=2)], 1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lambda shortcut": lambda: Net(
        lambda_shortcut, one=conv(3, 4), two=conv(4, 8, stride=2), bn=nn.BatchNorm2d(8), fc=nn.Linear(8, 5)
    ),
    "concatenations": lambda: Net(dense, one=conv(3, 4), two=conv(4, 2), bn=nn.BatchNorm2d(9), fc=nn.Linear(9, 5)),
    "slices and padding": lambda: Net(cut, one=conv(3, 4), two=conv(3, 4), fc=nn.Linear(4, 5)),
    "chunks": lambda: Net(halves, one=conv(3, 4), two=conv(2, 4), fc=nn.Linear(6, 5)),
    "factors": lambda: Net(
        scaled, one=conv(3, 4), two=conv(4, 4), gain=nn.Parameter(torch.rand(4, 1, 1)), fc=nn.Linear(4, 5)
    ),
    "a BatchNorm of what others read": lambda: Net(
        normalised, one=conv(3, 4), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, 5)
    ),
    "padded pools": lambda: Net(pools, one=conv(3, 4), two=conv(4, 4), fc=nn.Linear(4, 5)),
    "pools that do not fit": lambda: Net(ragged_pools, one=conv(3, 4), two=conv(4, 4), fc=nn.Linear(4, 5)),
    "global sums": lambda: Net(sums, one=conv(3, 4), fc=nn.Linear(8, 5)),
    "means of flat pictures": lambda: Net(flat_means, one=conv(3, 4), two=conv(3, 4), fc=nn.Linear(8, 5)),
    "groups": lambda: nn.Sequential(
        *(conv(3, 4), nn.ReLU(), conv(4, 4, groups=4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 8, groups=2), nn.ReLU()),
        *(nn.Conv2d(8, 4, 3, dilation=2, padding=(0, 1)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(4, 5),
    ),
    "kernels that are not square": lambda: nn.Sequential(
        *(nn.Conv2d(3, 4, (1, 5), padding=(0, 2), stride=(1, 2)), nn.ReLU(), nn.Conv2d(4, 4, (2, 3)), nn.ReLU()),
        *(nn.Conv2d(4, 4, (3, 1), dilation=(2, 1), stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)),
    ),
    "dense layers": lambda: nn.Sequential(
        *(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(16, 12), nn.ReLU(), nn.BatchNorm1d(12), nn.Linear(12, 5), nn.ReLU()),
    ),
}


@pytest.mark.parametrize("neuron", [sd.LIF(0.7, threshold=0.4), sd.IF(reset="soft")], ids=["LIF", "calibrated IF"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_has_the_networks_spikes(name: str, neuron: sd.LIF):
    torch.manual_seed(0)
    network, images = NETWORKS[name](), torch.randn(8, 3, SIDE, SIDE)
    network(images)
    settle(network, images)
    calibration = images if neuron.fixed_decay == 1.0 else None
    twin = sd.spikify(network, 4, neuron, example_input=images, calibration=calibration)
    agreement = compare_spikes(twin, through_a_file(twin, images), images)
    assert agreement.spikes > 99.9
    assert agreement.predictions == 8
    assert agreement.logits < 1e-3
    with torch.no_grad(), taps(twin, {path: path for path in layers_of(twin)}, "after") as tap:
        twin(images)
        assert all(0.0 < float(spikes.mean()) < 0.9 for spikes in tap.take().values())


def test_spikes_of_two_layers_may_be_pooled_together():
    torch.manual_seed(0)
    network, images = (
        Net(pooled_pair, one=conv(3, 4), two=conv(3, 4), fc=nn.Linear(8, 5)),
        torch.randn(4, 3, SIDE, SIDE),
    )
    twin = sd.spikify(network.eval(), 4, sd.LIF(threshold=0.4), example_input=images)
    assert compare_spikes(twin, through_a_file(twin, images), images).spikes > 99.9
    calibrated = sd.spikify(network, 4, sd.LIF(), example_input=images, calibration=images)
    with pytest.raises(sd.UserError, match="max pooling of values that are not spikes"):
        through_a_file(calibrated, images)


CUTS = [
    index
    for start, stop, step in product([None, 1, -2], [None, 4, -1], [1, 2, 3])
    for before, after in [(0, 0), (2, 1), (0, 3), (-1, 2)]
    if len(taken := sliced(6, start, stop, step)) + before + after > 0 and len(taken)
    for index in [selected((taken,), 0, padded(len(taken), before, after))[0]]
]


def test_a_selection_is_made_of_square_convolutions():
    image = torch.arange(1.0, 73.0).view(1, 2, 6, 6)
    single = 0
    for rows, columns in product(CUTS, CUTS[::7]):
        made = layers((2, 6, 6), (np.array([1, -1, 0]), rows, columns))
        if made is None:
            # Only zeros where the stride would reach places that are there (such parts become a node before).
            assert any((index < 0).any() for index in (rows, columns))
            continue
        single += len(made) == 1
        answer = image
        for kind, fields in made:
            assert kind == "Conv2d"
            assert fields["input_shape"] == tuple(answer.shape[2:])
            assert fields["weight"].shape[2] == fields["weight"].shape[3]
            weight, bias = (torch.from_numpy(fields[key]).float() for key in ("weight", "bias"))
            answer = F.conv2d(answer, weight, bias, fields["stride"], fields["padding"], fields["dilation"])
        zeros = F.pad(image, (0, 1, 0, 1, 0, 1))  # an index of -1 takes a zero
        assert torch.equal(answer, zeros[:, [1, -1, 0]][:, :, rows][:, :, :, columns])
    assert single > 100


def test_a_selection_keeps_its_kernel_small():
    ((kind, fields),) = layers((2, 8, 8), (np.arange(2), np.arange(0, 8, 2), np.arange(0, 8, 2)))
    assert kind == "Conv2d"
    assert fields["weight"].shape == (2, 2, 1, 1)
    assert fields["stride"] == (2, 2)
