"""Feature maps, Grad-CAM, CKA and membrane potentials, against values that are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import spikedistill as sd
from spikedistill.evaluation.maps import grad_cam, mean_features
from spikedistill.evaluation.membranes import charged, membrane_potentials
from spikedistill.evaluation.similarity import cka_matrix, linear_cka
from spikedistill.models.activation import layers_of
from spikedistill.spiking import LIF


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(10, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def pair(images: Tensor) -> tuple[sd.Network, sd.Network]:
    """An ANN and its spiking twin of the same weights, both with BatchNorm statistics of the images."""
    torch.manual_seed(0)
    ann = sd.create_model("resnet18", num_classes=4, in_channels=3, width=8)
    snn = sd.create_model("resnet18", num_classes=4, in_channels=3, width=8, spiking=True, timesteps=3)
    for module in ann.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        ann.train()(images)
    snn.load_state_dict(ann.state_dict())
    return ann.eval(), snn.eval()


class OneChannelAClass(nn.Module):
    """The logit of class k is the mean of channel k after the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 3, 1, bias=False), nn.ReLU()
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3).view(3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x)).mean((-2, -1))


def test_grad_cam_finds_the_channel_of_the_class(images):
    """The gradient of logit k is the same everywhere in channel k and zero elsewhere: the map is the channel itself."""
    labels = torch.arange(10) % 3
    found = grad_cam(OneChannelAClass(), images, labels, "relu")
    channel = images[torch.arange(10), labels].relu()
    assert torch.allclose(found, channel / channel.amax((-2, -1), keepdim=True), atol=1e-6)


def test_grad_cam_of_an_snn_is_the_mean_over_the_timesteps(images):
    """Spikes of height one: the map of class k is the firing rate of channel k, scaled to a largest value of one."""
    snn = sd.spikify(OneChannelAClass(), 4, LIF(0.5, 1.0), example_input=images[:1])
    labels = torch.arange(10) % 3
    path = next(iter(layers_of(snn)))
    found = grad_cam(snn, images, labels, path)
    rates = mean_features(snn, images, {"first": path})["first"][torch.arange(10), labels]
    assert torch.allclose(found, rates / rates.amax((-2, -1), keepdim=True), atol=1e-6)


def test_grad_cam_leaves_the_network_alone(images):
    _, snn = pair(images)
    snn.requires_grad_(False)
    found = grad_cam(snn, images, torch.zeros(10, dtype=torch.int64), snn.stages["stage2"])
    assert found.shape == (10, 16, 16)
    assert float(found.min()) >= 0.0
    assert float(found.max()) == 1.0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in snn.parameters())
    with pytest.raises(sd.UserError, match="maps"):
        flat = sd.create_model("2conv", num_classes=4, in_channels=3, image_size=16, width=4)
        grad_cam(flat, images, torch.zeros(10, dtype=torch.int64), "relu3")


def test_features_after_the_spike_are_firing_rates(images):
    ann, snn = pair(images)
    rates = mean_features(snn, images, snn.stages)
    assert list(rates) == ["stage1", "stage2", "stage3", "stage4"]
    thirds = rates["stage1"] * 3
    assert torch.allclose(thirds, thirds.round(), atol=1e-5)
    plain = mean_features(ann, images, ann.stages, "before")
    assert torch.allclose(plain["stage3"].relu(), mean_features(ann, images, ann.stages)["stage3"])


def reference_cka(x: Tensor, y: Tensor) -> float:
    """Kornblith et al. 2019, section 3: ||Y'X||^2 / (||X'X|| ||Y'Y||), in feature space."""
    x, y = (z.double() - z.double().mean(0) for z in (x, y))
    return float((y.t() @ x).norm() ** 2 / ((x.t() @ x).norm() * (y.t() @ y).norm()))


def test_cka_is_the_formula_in_float64():
    torch.manual_seed(0)
    x = torch.randn(40, 7)
    y = torch.cat([x[:, :3] * 2.0, torch.randn(40, 9)], 1)
    assert linear_cka(x, y) == pytest.approx(reference_cka(x, y), rel=1e-10)
    assert 0.0 < linear_cka(x, y) < 1.0
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x), rel=1e-12)


def test_cka_does_not_see_rotations_scales_and_shifts_but_other_maps():
    torch.manual_seed(0)
    x, y = torch.randn(50, 6), torch.randn(50, 6)
    rotation = torch.linalg.qr(torch.randn(6, 6)).Q
    assert linear_cka(x, x) == pytest.approx(1.0)
    assert linear_cka(x @ rotation, x) == pytest.approx(1.0, abs=1e-6)
    assert linear_cka(3.7 * (x @ rotation) - 2.0, y) == pytest.approx(linear_cka(x, y), rel=1e-5)
    assert linear_cka(x * torch.tensor([9.0, 1, 1, 1, 1, 1]), x) < 0.9
    assert linear_cka(x, torch.ones(50, 3)) == 0.0


def test_cka_of_layers_is_one_on_the_diagonal_of_a_network_with_itself(images):
    ann, snn = pair(images)
    own = cka_matrix(snn, snn, images, snn.stages, snn.stages)
    assert [row[index] for index, row in enumerate(own)] == pytest.approx([1.0] * 4)
    across = cka_matrix(ann, snn, images, ann.stages, snn.blocks)
    assert len(across) == 4
    assert {len(row) for row in across} == {8}
    assert all(0.0 <= value <= 1.0 for row in across for value in row)
    features = [mean_features(network, images, {"x": network.stages["stage2"]})["x"] for network in (ann, snn)]
    assert across[1][3] == pytest.approx(linear_cka(*features))


@pytest.mark.parametrize("sizes", [(3, 4), (1, 1)])
def test_cka_of_different_images_is_refused(sizes):
    with pytest.raises(sd.UserError, match="same images"):
        linear_cka(torch.randn(sizes[0], 2), torch.randn(sizes[1], 2))


def test_potentials_by_hand():
    """Decay 0.5, threshold 1, hard reset: 0.6, 0.3 + 0.6 = 0.9, 0.45 + 0.6 = 1.05 (fires), 0.6."""
    neuron = LIF(0.5, 1.0)
    found = charged(torch.full((4, 1, 1), 0.6), neuron).flatten().tolist()
    assert found == pytest.approx([0.6, 0.9, 1.05, 0.6])
    assert neuron(torch.full((4, 1, 1), 0.6)).flatten().tolist() == [0.0, 0.0, 1.0, 0.0]


def test_potentials_cross_the_threshold_where_the_network_fires(images):
    _, snn = pair(images)
    found = membrane_potentials(snn, images, bins=70)
    assert list(found) == list(layers_of(snn))
    rates = mean_features(snn, images, {path: path for path in found})
    for path, one in found.items():
        width = one.edges[1] - one.edges[0]
        assert sum(one.density) * width == pytest.approx(1.0)
        above = sum(share * width for share, low in zip(one.density, one.edges, strict=False) if low >= 0.999)
        assert above == pytest.approx(float(rates[path].mean()), abs=1e-6)
        assert one.window == pytest.approx((0.01, 1.99), abs=2e-3)  # the triangle of half-width 1 at the threshold
        assert 0.0 <= one.inside <= 1.0
    assert max(found["relu"].derivative) == pytest.approx(1.0, abs=0.06)


def test_an_ann_has_no_potentials(images):
    with pytest.raises(sd.UserError, match="ANN"):
        membrane_potentials(OneChannelAClass(), images)


def test_tokens_before_images_are_not_taken_for_timesteps() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.act, self.fc = nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.act(self.embed(x.flatten(2).permute(2, 0, 1))).mean(0))

    images = torch.rand(4, 3, 2, 4)
    twin = sd.spikify(Tokens(), 2, example_input=images)
    ann = mean_features(twin.to_ann(), images, {"tokens": "act"})["tokens"]
    assert ann.shape == mean_features(twin, images, {"tokens": "act"})["tokens"].shape == (4, 8, 8)
    torch.testing.assert_close(ann, torch.relu(twin.embed(images.flatten(2).permute(0, 2, 1))).detach())
