"""The elastic ResNet: its space, and every subnet a plain network that computes the same."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikedistill import LIF, PLIF, UserError, create_model
from spikedistill.models.elastic import ElasticResNet
from spikedistill.models.features import taps
from spikedistill.models.resnet import BasicBlock, ResNet
from spikedistill.models.subnets import RESNET34, SPACE, Space, Subnet

ODD = Subnet((80, 96, 320, 384), (2, 5, 3, 4))
SUBNETS = [SPACE.smallest, RESNET34, ODD]
TWINS = pytest.mark.parametrize("spiking", [False, True], ids=["ann", "snn"])


@pytest.fixture
def elastic(small):
    """A supernet whose running statistics are not the initial ones."""

    def build(*, spiking: bool = True, **options: int | str) -> ElasticResNet:
        network = small("elastic-resnet", spiking=spiking, **options)
        generator = torch.Generator().manual_seed(5)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
        return network

    return build


def gradients(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    network.zero_grad()
    functional.cross_entropy(network(images), torch.arange(len(images))).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def sliced(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return value[tuple(slice(size) for size in like.shape)]


def test_the_space_is_table_1():
    every = SPACE.every()
    assert len(SPACE) == len(every) == len(set(every)) == 36_288
    widths = product((48, 64, 80), (96, 128, 160), (192, 256, 320), (384, 512, 640))
    depths = product(range(2, 6), range(2, 6), range(2, 9), range(2, 6))
    assert set(every) == {Subnet(w, d) for w, d in product(widths, depths)}
    assert all(subnet in SPACE for subnet in (RESNET34, SPACE.largest, SPACE.smallest))
    assert SPACE.largest == Subnet((80, 160, 320, 640), (5, 5, 8, 5))
    assert SPACE.smallest == Subnet((48, 96, 192, 384), (2, 2, 2, 2))


def test_subnets_are_drawn_uniformly_from_a_generator():
    space = Space(((1, 2), (3, 4)), ((1,), (1, 2, 3)))
    assert len(space) == 12
    generator = torch.Generator().manual_seed(0)
    counts = Counter(space.sample(generator) for _ in range(1200))
    assert set(counts) == set(space.every())
    assert max(abs(count - 100) for count in counts.values()) < 4 * (100 * 11 / 12) ** 0.5
    drawn = [SPACE.sample(torch.Generator().manual_seed(3)) for _ in range(2)]
    assert drawn[0] == drawn[1]


@TWINS
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_largest_is_the_plain_network_bit_for_bit(spiking, training, elastic, images):
    network = elastic(spiking=spiking).train(training)
    neuron = LIF(threshold=0.5) if spiking else None
    plain = ResNet(
        BasicBlock,
        (5, 5, 8, 5),
        (5, 10, 20, 40),
        num_classes=10,
        in_channels=3,
        timesteps=2 if spiking else None,
        neuron=neuron,
    ).train(training)
    assert [(k, v.shape) for k, v in network.state_dict().items()] == [
        (k, v.shape) for k, v in plain.state_dict().items()
    ]
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network(images), plain(images))
    ours, theirs = gradients(network, images), gradients(plain, images)
    assert ours.keys() == theirs.keys() == dict(plain.named_parameters()).keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in network.state_dict().items())


@TWINS
@pytest.mark.parametrize("subnet", SUBNETS, ids=str)
def test_a_subnet_is_a_plain_network_of_the_first_channels_and_blocks(spiking, subnet, elastic, images):
    network = elastic(spiking=spiking).eval()
    network.choose(subnet)
    plain = network.extract(subnet)
    assert type(plain) is ResNet
    assert not any(type(module).__module__.endswith("elastic") for module in plain.modules())
    state = network.state_dict()
    assert all(torch.equal(value, sliced(state[key], value)) for key, value in plain.state_dict().items())
    assert [len(plain.get_submodule(f"layer{stage}")) for stage in (1, 2, 3, 4)] == list(subnet.depths)
    with torch.no_grad():
        assert torch.equal(network(images), plain(images))
        assert not torch.allclose(network(images), elastic(spiking=spiking).eval()(images))

    network.train()
    plain.train()
    ours, theirs = gradients(network, images), gradients(plain, images)
    for name, value in theirs.items():
        assert torch.allclose(sliced(ours[name], value), value, rtol=1e-4, atol=1e-6), name
    used = sum(int(value.count_nonzero()) for value in ours.values())
    assert used == sum(int(value.count_nonzero()) for value in theirs.values()), "nothing beyond the slices is touched"


def test_only_the_largest_moves_the_running_statistics(elastic, images):
    network = elastic().train()
    before = copy.deepcopy(network.state_dict())
    network.choose(ODD)
    network(images)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    network.choose(SPACE.largest)
    network(images)
    moved = [key for key, value in network.state_dict().items() if not torch.equal(value, before[key])]
    assert moved == [
        key for key in before if key.rsplit(".")[-1] in ("running_mean", "running_var", "num_batches_tracked")
    ]


def test_an_extracted_network_is_its_own(elastic, images):
    network = elastic(spiking=True).eval()
    network.timesteps = 3
    plain = network.extract(ODD)
    assert plain.timesteps == 3
    assert plain(images, per_step=True).shape[0] == 3
    before = plain(images)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(plain(images), before)
    assert all(parameter.requires_grad for parameter in plain.parameters())


def test_learned_decays_go_along(images):
    torch.manual_seed(0)
    options = {"num_classes": 10, "in_channels": 3, "width": 4, "spiking": True, "timesteps": 2}
    network = create_model("elastic-resnet", neuron=PLIF(threshold=0.5), **options).eval()
    with torch.no_grad():
        for index, layer in enumerate(m for m in network.modules() if isinstance(m, PLIF)):
            layer.decay_logit.fill_(0.1 * index - 1.0)
    network.choose(ODD)
    assert torch.equal(network.extract(ODD)(images), network(images))


def test_the_chosen_subnets_features_are_named(elastic, images):
    network = elastic().eval()
    network.choose(ODD)
    assert network.stages == {
        "stage1": "layer1.1.relu2",
        "stage2": "layer2.4.relu2",
        "stage3": "layer3.2.relu2",
        "stage4": "layer4.3.relu2",
    }
    assert len(network.blocks) == sum(ODD.depths)
    with torch.no_grad(), taps(network, network.blocks, "after") as tap:
        network(images)
        found = tap.take()
    assert found.keys() == network.blocks.keys()
    assert [found[path].shape[1] for path in ("stage1.block1", "stage2.block1", "stage4.block4")] == [5, 6, 24]


def test_a_copy_chooses_for_itself(elastic, images):
    network = elastic().eval()
    twin = copy.deepcopy(network)
    twin.choose(SPACE.smallest)
    assert network.chosen == SPACE.largest
    with torch.no_grad():
        assert torch.equal(network(images), elastic().eval()(images))
        assert torch.equal(twin(images), network.extract(SPACE.smallest)(images))


def test_resnet34_is_resnet34():
    with torch.device("meta"):
        supernet = create_model("elastic-resnet", num_classes=10, in_channels=3)
        named = create_model("elastic-resnet", num_classes=10, in_channels=3, subnet="64-128-256-512/3-4-6-3")
        resnet34 = create_model("resnet34", num_classes=10, in_channels=3)
    shapes = {key: value.shape for key, value in resnet34.state_dict().items()}
    for network in (named, supernet.extract(RESNET34)):
        assert {key: value.shape for key, value in network.state_dict().items()} == shapes


def test_a_subnet_is_built_again_from_its_settings(elastic, images):
    network = elastic(spiking=False).eval()
    plain = network.extract(ODD)
    assert plain.settings is not None
    assert plain.settings["options"] == {"subnet": "80-96-320-384/2-5-3-4"}
    section = dict(plain.settings)
    options = section.pop("options")
    name = section.pop("model")
    again = create_model(name, **section, **options).eval()
    assert type(again) is ResNet
    again.load_state_dict(plain.state_dict())
    assert torch.equal(again(images), plain(images))


@pytest.mark.parametrize("subnet", SUBNETS, ids=str)
def test_a_subnets_name_is_read_back(subnet):
    assert Subnet.parse(str(subnet)) == subnet


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 6}, "width must be a multiple of 4, not 6"),
        ({"subnet": "64-128-256-512"}, "a subnet is the stages' channels and blocks, such as .* not '64-128-256-512'"),
        ({"subnet": "64-128-256-512/3-4-6"}, "subnet 64-128-256-512/3-4-6 is not in the search space"),
        ({"subnet": "64-128-256-512/3-4-9-3"}, r"is not in the search space: channels \{48, 64, 80\} x "),
        ({"subnet": 3}, "subnet must be a name, not 3"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(UserError, match=message):
        create_model("elastic-resnet", num_classes=10, in_channels=3, **options)


def test_a_subnet_outside_the_space_is_refused(elastic):
    network = elastic()
    for act in (network.choose, network.extract):
        with pytest.raises(UserError, match="subnet 16-32-64-128/2-2-2-2 is not in the search space"):
            act(Subnet((16, 32, 64, 128), (2, 2, 2, 2)))
    assert network.chosen == SPACE.largest


def test_a_subnet_of_a_firing_supernet_fires(elastic):
    supernet = elastic(output="spikes").eval()
    supernet.choose(ODD)
    plain = supernet.extract(ODD)
    x = torch.rand(3, 3, 16, 16) * 4
    with torch.no_grad():
        assert torch.equal(plain(x), supernet(x))
    assert plain.settings["options"] == {"output": "spikes", "subnet": str(ODD)}


def test_a_subnets_output_neurons_keep_what_they_have_learned(small):
    supernet = create_model(
        "elastic-resnet",
        num_classes=10,
        in_channels=3,
        width=8,
        spiking=True,
        timesteps=2,
        neuron=PLIF(),
        output="spikes",
    )
    for name, parameter in supernet.named_parameters():
        if name.endswith("decay_logit"):
            torch.nn.init.constant_(parameter, 1.7)
    plain = supernet.extract(ODD)
    assert plain.output.neuron.decay_logit.item() == pytest.approx(1.7)
