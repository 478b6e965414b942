"""Noise does what its summary says, the same at every call, and leaves the network as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import spikedistill as sd
from spikedistill.data import DataInfo
from spikedistill.data.seeds import generator
from spikedistill.evaluation.accuracy import evaluate
from spikedistill.evaluation.robustness import NOISES, noises_for, parse_noise, robustness
from spikedistill.models.fuse import optimise

INFO = DataInfo("made", tuple("abcd"), (2, 8, 8), (0.5, 0.4), (0.2, 0.3))


class Batches:
    """Two batches of normalised images."""

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(0)
        self.images = torch.rand(40, 2, 8, 8, generator=draws)
        self.labels = torch.randint(0, 4, (40,), generator=draws)

    def __len__(self) -> int:
        return 2

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for part in (slice(0, 25), slice(25, 40)):
            yield normalised(self.images[part]), self.labels[part]


def normalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (INFO.mean, INFO.std))
    return (pixels - mean) / std


def pixels_after(kind: str, strength: float, pixels: Tensor, seed: int = 0) -> Tensor:
    """What a noise makes of pixels in [0, 1]."""
    with NOISES[kind].apply(nn.Identity(), INFO, strength, generator(seed, kind)) as change:
        noisy = change(normalised(pixels))
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (INFO.mean, INFO.std))
    return noisy * std + mean


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return sd.create_model(
        "2conv", num_classes=4, in_channels=2, image_size=8, width=8, spiking=True, timesteps=3
    ).eval()


def test_events_are_no_pixels(network):
    events = replace(INFO, timesteps=3)
    assert set(noises_for(network, INFO)) - set(noises_for(network, events)) == {
        "gaussian",
        "salt-and-pepper",
        "occlusion",
    }
    with pytest.raises(sd.UserError, match="'gaussian' is on pixels, and these data are events"):
        robustness(network, Batches(), events, "gaussian", [0.1])


def test_gaussian_has_its_standard_deviation_in_units_of_the_pixels():
    grey = torch.full((200, 2, 8, 8), 0.5)
    noise = pixels_after("gaussian", 0.05, grey) - grey
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02)
    assert abs(float(noise.mean())) < 0.002
    strong = pixels_after("gaussian", 1.0, grey)
    assert float(strong.min()) == pytest.approx(0.0, abs=1e-6)
    assert float(strong.max()) == pytest.approx(1.0, abs=1e-6)


def test_salt_and_pepper_hits_its_share_in_all_channels_at_once():
    grey = torch.full((200, 2, 8, 8), 0.5)
    noisy = pixels_after("salt-and-pepper", 0.1, grey)
    hit = (noisy - 0.5).abs() > 0.4
    assert float(hit.float().mean()) == pytest.approx(0.1, abs=0.01)
    assert torch.equal(hit[:, 0], hit[:, 1])
    white = noisy[hit] > 0.5
    assert float(white.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert torch.allclose(noisy[~hit], torch.tensor(0.5))


def test_blur_spreads_a_point_by_its_standard_deviation():
    point = torch.zeros(1, 2, 33, 33)
    point[..., 16, 16] = 1.0
    blurred = pixels_after("blur", 2.0, point)[0, 0]
    places = torch.arange(33) - 16.0
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-4)
    for dim in (0, 1):
        assert float((blurred.sum(dim) * places**2).sum()) == pytest.approx(4.0, rel=0.05)
    flat = torch.full((1, 2, 9, 9), 0.3)
    assert torch.allclose(pixels_after("blur", 1.5, flat), flat, atol=1e-5)


def test_occlusion_covers_a_square_of_its_side():
    black = torch.zeros(400, 2, 8, 8)
    covered = (pixels_after("occlusion", 0.375, black) - 0.5).abs() < 1e-5
    assert covered.sum((-2, -1)).unique().tolist() == [9]  # 3 x 3 of 8 x 8
    assert covered.any(0)[0].all(), "every place is covered in some image"


def test_deleted_spikes_are_gone_and_no_others(network):
    spikes = torch.ones(3 * 4, 50)
    with NOISES["spike-deletion"].apply(network, INFO, 0.3, generator(0)):
        layer = network.get_submodule("relu1")
        network._clock.timesteps = 3
        left = layer(torch.full_like(spikes, 5.0))
    assert set(left.unique().tolist()) == {0.0, 1.0}
    assert float(left.mean()) == pytest.approx(0.7, abs=0.05)


def test_jitter_moves_spikes_in_time_and_only_in_time(network):
    """One spike a neuron, at the second of three steps: none is lost, half a step of deviation moves 32 % of them."""
    network._clock.timesteps = 3
    layer = network.get_submodule("relu1")
    current = torch.zeros(3, 2000, 4)
    current[1] = 5.0
    with NOISES["spike-jitter"].apply(network, INFO, 0.5, generator(0)):
        moved = layer(current.flatten(0, 1)).unflatten(0, (3, -1))
    assert torch.equal(moved.sum(0), torch.ones(2000, 4))
    earlier, stayed, later = moved.mean((1, 2)).tolist()
    assert stayed == pytest.approx(0.683, abs=0.02)  # |normal| < 1 standard deviation
    assert earlier == pytest.approx(later, abs=0.03)


def test_jitter_merges_what_meets(network):
    network._clock.timesteps = 3
    with NOISES["spike-jitter"].apply(network, INFO, 1.0, generator(0)):
        spikes = network.get_submodule("relu1")(torch.full((3 * 500, 4), 5.0))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert float(spikes.mean()) < 0.95


def test_weights_get_noise_of_their_own_size_and_are_put_back(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with NOISES["weights"].apply(network, INFO, 0.2, generator(0)):
        now = network.state_dict()
        weight = before["fc1.weight"]
        assert float((now["fc1.weight"] - weight).std() / weight.std()) == pytest.approx(0.2, rel=0.05)
        assert torch.equal(now["bn1.weight"], before["bn1.weight"])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("kind", NOISES)
def test_a_curve_starts_without_noise_and_can_be_repeated(kind, network):
    batches = Batches()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    plain = evaluate(network, batches, 4).accuracy
    strongest = NOISES[kind].strengths[-1]
    found = robustness(network, batches, INFO, kind, [strongest])
    assert list(found) == [0.0, strongest]
    assert found[0.0] == plain
    assert robustness(network, batches, INFO, kind, [strongest]) == found
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("kind", NOISES)
def test_noise_changes_what_the_network_answers(kind, network):
    images = normalised(Batches().images[:8])
    answers = []
    for seed in (0, 1):
        with torch.no_grad(), NOISES[kind].apply(network, INFO, NOISES[kind].strengths[-1], generator(seed)) as change:
            answers.append(network(change(images)))
    with torch.no_grad():
        clean = network(images)
    assert not torch.equal(answers[0], clean)
    assert torch.equal(answers[0], answers[1]) == (kind == "blur"), "only blur draws nothing"


def test_fused_networks_feel_the_noise_too(network):
    found = robustness(network, Batches(), INFO, "spike-deletion", [1.0])
    assert robustness(optimise(network), Batches(), INFO, "spike-deletion", [1.0]) == found


def test_twins_of_other_layouts_take_noise_on_spikes():
    """A network whose batch is its second dimension."""

    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).permute(2, 0, 1)  # [64, B, 2]
            return self.last(self.first(tokens).relu().mean(0))

    images = normalised(Batches().images)
    snn = sd.spikify(Sequence(), 3, example_input=images[:2]).eval()
    assert "spike-jitter" in noises_for(snn, INFO)
    for kind in ("spike-jitter", "spike-deletion"):
        assert 0.0 <= robustness(snn, Batches(), INFO, kind, [0.5])[0.5] <= 100.0


def test_an_ann_has_no_spikes_to_disturb():
    ann = sd.create_model("2conv", num_classes=4, in_channels=2, image_size=8, width=8)
    assert "spike-deletion" not in noises_for(ann, INFO)
    assert "weights" in noises_for(ann, INFO)
    with pytest.raises(sd.UserError, match="ANN"):
        robustness(ann, Batches(), INFO, "spike-deletion", [0.1])


def test_noise_is_read_from_text():
    assert parse_noise("gaussian:0.05") == ("gaussian", (0.05,))
    assert parse_noise("blur") == ("blur", NOISES["blur"].strengths)


@pytest.mark.parametrize("text", ["gauss:0.1", "gaussian:", "gaussian:x", "gaussian:-1", "occlusion:1.5", "blur:nan"])
def test_wrong_noise_is_refused(text):
    with pytest.raises(sd.UserError, match="noise"):
        parse_noise(text)


def test_papers_strengths_are_on_the_curve():
    assert {0.01, 0.03, 0.05} <= set(NOISES["gaussian"].strengths)


def test_a_single_weight_has_no_deviation_to_be_noisy_by() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.fc = nn.Parameter(torch.ones(1, 1)), nn.Linear(128, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.fc(x.flatten(1))

    found = robustness(Scaled(), Batches(), INFO, "weights", (0.0, 1e-6), 0)
    assert found[0.0] == found[1e-6]
