"""``sd.evaluate``: anybody's network on anybody's images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import spikedistill as sd
from spikedistill.evalrun import evaluate_run
from spikedistill.recipebook import read_recipe
from spikedistill.run import train


class Items(Dataset):
    """Read one by one, uint8."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], int(self.labels[index])


@pytest.fixture(scope="module")
def bytes_of_images() -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return (
        torch.randint(0, 256, (45, 2, 8, 8), generator=source, dtype=torch.uint8),
        torch.randint(0, 5, (45,), generator=source),
    )


@pytest.fixture(scope="module")
def pair(bytes_of_images: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return bytes_of_images[0].float() / 255, bytes_of_images[1]


@pytest.fixture(scope="module")
def snn(pair: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
    torch.manual_seed(1)
    front = nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten()
    ann = nn.Sequential(*front, nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 5))
    return sd.spikify(ann, timesteps=3, neuron=sd.LIF(threshold=0.2), example_input=pair[0])


def test_accuracy_after_each_step_is_that_of_the_mean_of_the_logits_so_far(snn, pair):
    images, labels = pair
    with torch.no_grad():
        steps = snn.eval()(images, per_step=True)
    expected = {t: 100 * float((steps[:t].mean(0).argmax(-1) == labels).double().mean()) for t in (1, 2, 3)}
    snn.train()
    found = sd.evaluate(snn, pair, batch_size=7)
    assert found.accuracy_per_timestep == pytest.approx(expected)
    assert found.accuracy == found.accuracy_per_timestep[3]
    assert 0 < max(found.firing_rate.values()) < 1
    confusion = torch.tensor(found.confusion)
    assert confusion.sum(1).tolist() == labels.bincount(minlength=5).tolist(), "a row for each true class"
    assert 100 * float(confusion.trace()) / len(labels) == pytest.approx(found.accuracy)
    assert (snn.training, snn.timesteps, found.timesteps, found.count) == (True, 3, 3, 45)


def test_whatever_holds_the_images_the_answer_is_the_same(snn, pair, bytes_of_images):
    expected = sd.evaluate(snn, pair, noise="spike-deletion:0.3")
    tensors = TensorDataset(*pair)
    for data in (
        tensors,
        Subset(tensors, range(45)),
        Items(*bytes_of_images),
        Items(*pair),
        DataLoader(tensors, 45),
        [bytes_of_images],
        iter(DataLoader(tensors, 45)),
    ):
        assert sd.evaluate(snn, data, noise="spike-deletion:0.3", batch_size=45) == expected


def test_an_ann_and_a_sequence_it_sees_the_mean_of(pair):
    images, labels = pair
    torch.manual_seed(2)
    ann = nn.Sequential(nn.Flatten(), nn.Linear(128, 5))
    found = sd.evaluate(ann, pair)
    assert (found.timesteps, found.firing_rate, list(found.accuracy_per_timestep)) == (None, {}, [1])
    frames = torch.stack([images - 0.1, images + 0.1], 1)  # [N, T, C, H, W]
    assert sd.evaluate(ann, (frames, labels), noise="weights:0.2") == sd.evaluate(ann, pair, noise="weights:0.2")


def test_noise_on_pixels_of_normalised_images_is_the_noise_of_the_plain_ones(pair):
    images, _ = pair
    mean, std = (0.4, 0.6), (0.2, 0.3)
    torch.manual_seed(3)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(128, 5))
    labels = plain(images).argmax(-1)

    class Undone(nn.Module):
        def forward(self, x):
            return plain(x * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1))

    normalised = (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    given = sd.evaluate(Undone(), (normalised, labels), noise="salt-and-pepper", normalisation=(mean, std))
    assert given.noise == sd.evaluate(plain, (images, labels), noise="salt-and-pepper").noise
    assert given.noise["salt-and-pepper"][0.0] == 100
    assert len(set(given.noise["salt-and-pepper"].values())) > 1, "the noise does something"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    small = ["data.subset=80", "data.test_subset=40", "epochs=1", "student.width=4", "timesteps=2", f"out={folder}"]
    train(read_recipe("digits-2conv-snn", small), verbose=False)
    return folder


def test_a_run_is_measured_as_the_command_measures_it(run):
    by_command = evaluate_run(run, noises=["gaussian:0.2"])
    network = sd.load(run)
    found = sd.evaluate(network, run=run, noise="gaussian:0.2")
    assert found.accuracy_per_timestep == by_command["accuracy_per_timestep"]
    assert found.firing_rate == by_command["firing_rate"]
    assert found.noise["gaussian"][0.2] == by_command["noise"]["gaussian"]["0.2"]
    network.timesteps = 1
    assert sd.evaluate(network, run=run).accuracy == found.accuracy_per_timestep[1]


REFUSED: dict[str, tuple[Callable[..., object], str]] = {
    "no network": (lambda snn, x, y: sd.evaluate("runs/x", (x, y)), "must be a torch.nn.Module"),
    "a name": (lambda snn, x, y: sd.evaluate(snn, "digits"), "run='runs/mine'"),
    "nothing": (lambda snn, x, y: sd.evaluate(snn), "data must be a Dataset"),
    "a number": (lambda snn, x, y: sd.evaluate(snn, 7), "not 7;"),
    "no pairs": (lambda snn, x, y: sd.evaluate(snn, [1, 2]), "batch 0 of the data is no pair"),
    "no images": (lambda snn, x, y: sd.evaluate(snn, (x[:0], y[:0])), "empty"),
    "no batches": (lambda snn, x, y: sd.evaluate(snn, []), "no images"),
    "labels of a regression": (lambda snn, x, y: sd.evaluate(snn, [(x, y.float())]), "class numbers [B]"),
    "labels one hot": (lambda snn, x, y: sd.evaluate(snn, [(x, nn.functional.one_hot(y))]), "labels [45, 5]"),
    "flat images": (lambda snn, x, y: sd.evaluate(snn, [(x.flatten(1), y)]), "images [45, 128]"),
    "labels": (lambda snn, x, y: sd.evaluate(snn, (x, y + 1)), "labels must lie in 0 .. 4"),
    "labels in batches": (lambda snn, x, y: sd.evaluate(snn, [(x, y + 1)]), "labels must lie in 0 .. 4"),
    "channels": (lambda snn, x, y: sd.evaluate(snn, (x[:, :1], y)), "1x8x8"),
    "no classifier": (lambda snn, x, y: sd.evaluate(nn.Conv2d(2, 3, 1), (x, y)), "[3, 8, 8]"),
    "noise": (lambda snn, x, y: sd.evaluate(snn, (x, y), noise="gausian"), "did you mean 'gaussian'"),
    "normalised": (lambda snn, x, y: sd.evaluate(snn, (4 * x - 2, y), noise=["blur", "gaussian"]), "[-2, 2]"),
    "constants": (lambda snn, x, y: sd.evaluate(snn, (x, y), normalisation=((0,), (1,))), "2 channels"),
    "data and run": (lambda snn, x, y: sd.evaluate(snn, (x, y), run="runs/x"), "leave data out"),
    "no run": (lambda snn, x, y: sd.evaluate(snn, run="runs/nowhere"), "is not a run folder"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_mistakes_are_refused(mistake, snn, pair):
    act, said = REFUSED[mistake]
    with pytest.raises(sd.UserError) as caught:
        act(snn, *pair)
    assert said in str(caught.value)


def test_a_part_that_is_held_in_the_other_mode_stays_there() -> None:
    network = sd.create_model("resnet18", num_classes=4, in_channels=1, width=4, spiking=False).train()
    network.bn1.eval()
    before = {path: module.training for path, module in network.named_modules()}
    sd.evaluate(network, (torch.rand(6, 1, 8, 8), torch.arange(6) % 4))
    assert {path: module.training for path, module in network.named_modules()} == before
