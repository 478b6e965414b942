"""NaN and infinity are noticed within a step, named, and stop the run or are left out; silent layers are named."""

import math
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spikedistill as sd
from spikedistill.engine import OptimizerSettings, ScheduleSettings, Trainer, TrainSettings
from spikedistill.engine.activity import Activity, unvarying_layers
from spikedistill.engine.checkpoint import latest_checkpoint
from spikedistill.engine.devices import make_fabric
from spikedistill.engine.finite import largest
from spikedistill.engine.progress import Reporter
from spikedistill.errors import TrainingFailed
from spikedistill.methods.base import NO_TEACHER, Method, Progress
from spikedistill.run import train

EPOCHS, BATCHES = 2, 4


class Blow(nn.Module):
    """Passes everything on, but from a given call makes its first number infinite, forwards or backwards."""

    def __init__(self, call: int, backwards: bool = False) -> None:
        super().__init__()
        self.left, self.backwards = call, backwards

    def forward(self, x: Tensor) -> Tensor:
        self.left -= self.training
        if self.left >= 0:
            return x
        if not self.backwards:
            return x + torch.zeros_like(x).index_fill(0, torch.tensor(0), math.inf)
        # The square root's slope at zero.
        return x + (x[0] - x[0].detach()).square().sum().sqrt()


class Two(Method):
    """Cross-entropy, and a second term that is what it is told to be at a given step."""

    teacher_role = NO_TEACHER
    spiking_student = False

    def __init__(self, student: nn.Module, value: float = 0.0, at: int = -1) -> None:
        super().__init__(student, None, None, torch.zeros(1))
        self.value, self.left = value, at

    def forward(self, images: Tensor, labels: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.student(images)
        self.left -= 1
        extra = logits.square().mean() * (self.value if self.left == -1 else 0.1)
        return logits, {"task": F.cross_entropy(logits, labels), "extra": extra}


class Batches:
    """Four fixed batches, of which some may be left out or hold a pixel that is no number."""

    def __init__(self, chosen: tuple[int, ...] = (0, 1, 2, 3), bad: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(BATCHES, 8, 6, generator=generator)
        self.labels = torch.randint(0, 3, (BATCHES, 8), generator=generator)
        self.chosen = chosen
        if bad is not None:
            self.images[bad, 3, 2] = math.nan

    def __len__(self) -> int:
        return len(self.chosen)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.chosen[start:]:
            yield self.images[batch], self.labels[batch]


def network(*inside: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), *inside, nn.Linear(5, 3))


def trainer(folder: Path, method: Method, batches: Batches | None = None, **settings: object) -> Trainer:
    folder.mkdir(exist_ok=True)
    chosen = TrainSettings(
        epochs=EPOCHS,
        optimizer=OptimizerSettings("sgd", lr=0.1),
        schedule=ScheduleSettings("constant"),
        checkpoint_minutes=forked.EACH_STEP,
        **settings,  # type: ignore[arg-type]
    )
    fabric = make_fabric(torch.device("cpu"), "32")
    return Trainer(fabric, method, batches or Batches(), chosen, folder, lambda _: {}, Reporter("run", True))


def failure(run: Trainer) -> str:
    with pytest.raises(TrainingFailed) as caught:
        run.fit()
    return str(caught.value)


def finite(folder: Path) -> int:
    """The step of the last checkpoint, all of whose weights are finite."""
    state = latest_checkpoint(folder / "checkpoints")
    assert state is not None
    assert all(value.isfinite().all() for value in state["method"].values() if value.is_floating_point())
    return state["position"]["epoch"] * BATCHES + state["position"]["batch"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_loss_term_is_named_and_the_last_good_checkpoint_stands(tmp_path: Path, value: float) -> None:
    message = failure(trainer(tmp_path, Two(network(), value, at=5)))
    assert message.startswith(f"loss term 'extra' is {value} in epoch 2, batch 2 of 4")
    assert "go on from the last checkpoint with --resume on_bad_numbers=skip" in message
    assert finite(tmp_path) == 5


def test_the_layer_where_it_began_is_named(tmp_path: Path) -> None:
    message = failure(trainer(tmp_path, Two(network(nn.Identity(), Blow(5), nn.Identity()))))
    assert message.startswith("loss term 'task' is nan, loss term 'extra' is nan in epoch 2, batch 2 of 4")
    assert "first in the output of layer '4'" in message
    assert finite(tmp_path) == 5


def test_a_gradient_is_noticed_though_the_loss_is_finite(tmp_path: Path) -> None:
    message = failure(trainer(tmp_path, Two(network(Blow(5, backwards=True)))))
    assert "the gradient of '1.bias' is nan in epoch 2, batch 2 of 4" in message
    assert "first in the gradient of loss term 'task' behind layer '2'" in message
    assert finite(tmp_path) == 5


def test_a_bad_pixel_is_told_apart_from_a_bad_network(tmp_path: Path) -> None:
    said = failure(trainer(tmp_path, Two(network()), Batches(bad=2)))
    assert "and so are pixels of its images; look for them in the data" in said
    assert "optimizer.lr" not in said


def test_on_a_device_it_is_noticed_one_step_later_and_never_saved(tmp_path: Path) -> None:
    # As on a GPU, where nothing waits for the verdict.
    run = trainer(tmp_path, Two(network(nn.Identity(), Blow(5))), Batches(), accumulate=1)
    run.watch.waits = False
    run.settings = TrainSettings(**{**vars(run.settings), "checkpoint_minutes": 1000.0})
    message = failure(run)
    assert "in epoch 2, batch 2 of 4" in message
    assert "first in the output of layer '4'" in message
    assert run.position.batch == 2
    assert finite(tmp_path) == 4


@pytest.mark.parametrize("waits", [True, False])
def test_a_bad_last_step_of_the_run_is_noticed_too(tmp_path: Path, waits: bool) -> None:
    run = trainer(tmp_path, Two(network(), math.nan, at=EPOCHS * BATCHES - 1))
    run.watch.waits = waits
    assert "in epoch 2, batch 4 of 4" in failure(run)
    assert finite(tmp_path) == EPOCHS * BATCHES - 1


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_skipped_step_is_as_if_it_had_not_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], accumulate: int
) -> None:
    skipping = trainer(tmp_path / "a", Two(network()), Batches(bad=2), on_bad_numbers="skip", accumulate=accumulate)
    rows = skipping.fit()
    # With two batches a step the good half of a bad step is lost too, but for what BatchNorm has seen of it.
    without = trainer(
        tmp_path / "b", Two(network()), Batches((0, 1, 3) if accumulate == 1 else (0, 1)), accumulate=accumulate
    )
    without.fit()
    for (name, ours), theirs in zip(skipping.method.named_parameters(), without.method.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    if accumulate == 1:
        for (name, ours), theirs in zip(skipping.method.named_buffers(), without.method.buffers(), strict=True):
            assert torch.equal(ours, theirs), name
    assert [row["skipped"] for row in rows] == [1.0, 1.0]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert "epoch 2: 1 batches left out, their numbers not finite" in capsys.readouterr().err


def test_an_epoch_without_one_good_step_ends_the_run_that_skips(tmp_path: Path) -> None:
    run = trainer(tmp_path, Two(network()), Batches((2,), bad=2), on_bad_numbers="skip")
    assert "every batch of epoch 1 gave a loss or gradient that is not finite" in failure(run)


def test_a_stopped_run_goes_on_under_the_other_policy(tmp_path: Path) -> None:
    failure(trainer(tmp_path, Two(network()), Batches(bad=2)))
    again = trainer(tmp_path, Two(network()), Batches(bad=2), on_bad_numbers="skip")
    assert again.resume()
    again.fit()
    whole = trainer(tmp_path / "whole", Two(network()), Batches(bad=2), on_bad_numbers="skip")
    whole.fit()
    for (name, ours), theirs in zip(again.method.state_dict().items(), whole.method.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("minutes", [forked.EACH_STEP, 1000.0])
def test_weights_that_a_finite_gradient_made_infinite_are_never_saved(tmp_path: Path, minutes: float) -> None:
    asked = forked.recipe(tmp_path / "run", "optimizer.lr=1e30", "epochs=1", name="digits-2conv-snn")
    asked.checkpoint_minutes = minutes
    with pytest.raises(TrainingFailed, match=r"begin anew with a smaller optimizer\.lr or clip=1\.0") as caught:
        train(asked, verbose=False)
    assert "no longer finite in epoch 1, batch 2 of 6" in str(caught.value) or minutes > 1
    assert not (tmp_path / "run" / "summary.json").exists()
    if minutes < 1:
        finite(tmp_path / "run")


def test_infinities_that_a_network_has_by_design_are_no_fault(tmp_path: Path) -> None:
    student = network()
    student.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    assert len(trainer(tmp_path, Two(student)).fit()) == EPOCHS


def spiking(threshold: float) -> sd.Network:
    torch.manual_seed(0)
    neuron = sd.LIF(threshold=threshold)
    return sd.create_model("2conv", num_classes=3, in_channels=1, image_size=8, width=4, spiking=True, neuron=neuron)


def test_dead_and_saturated_layers_are_found_by_name() -> None:
    images = torch.randn(40, 1, 8, 8)
    assert unvarying_layers(spiking(1.0), images) == {}
    assert set(unvarying_layers(spiking(1e9), images).values()) == {0.0}
    loud = spiking(1.0)
    for module in loud.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 1e6)
    first = next(iter(unvarying_layers(loud, images).items()))
    assert first[1] == 1.0
    assert first[0] in dict(loud.named_modules())


def test_dead_and_saturated_layers_are_told_apart() -> None:
    told: list[str] = []
    activity, images = Activity(), torch.randn(40, 1, 8, 8)
    loud = spiking(1.0)
    for module in loud.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 1e6)
    activity.tell(spiking(1e9), images, told.append)
    assert told and all("is dead: none of its neurons fires" in line for line in told)
    told.clear()
    activity.tell(loud, images, told.append)
    activity.tell(loud, images, told.append)
    paths = [path for path, rate in unvarying_layers(loud, images).items() if rate == 1.0]
    assert paths
    for path in paths:
        about = [line for line in told if line.startswith(f"layer '{path}' ")]
        assert about == [f"layer '{path}' is saturated: all its neurons always fire (on a few training images)"]


def test_looking_for_them_leaves_no_trace() -> None:
    student = spiking(1.0).train()
    student.encoding = _noisy
    before, random = {key: value.clone() for key, value in student.state_dict().items()}, torch.get_rng_state()
    unvarying_layers(student, torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), random)
    assert student.training
    for key, value in student.state_dict().items():
        assert torch.equal(value, before[key]), key


def _noisy(images: Tensor, timesteps: int) -> Tensor:
    return torch.rand(timesteps, *images.shape)


def test_they_are_told_once_and_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = forked.recipe(tmp_path / "run", "neuron.threshold=1e9", "optimizer.lr=1e-9", name="digits-2conv-snn")
    run = train(asked)
    told = [line for line in capsys.readouterr().err.splitlines() if "is dead: none of its neurons fires" in line]
    layers = [path for path, rate in _rates(run.folder).items() if rate == 0.0]
    assert len(layers) > 1
    assert [f"epoch 1: layer '{path}'" in line for path, line in zip(layers, told, strict=True)] == [True] * len(layers)


def _rates(folder: Path) -> dict[str, float]:
    import json

    return json.loads((folder / "evaluation.json").read_text())["firing_rate"]


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
def test_the_largest_gradient_is_the_maximum_norm(bad: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(size, generator=generator) for size in ((3, 5), (0,), (64, 7, 3))]
    grads[1] = grads[1].to(torch.bfloat16)
    if bad is not None:
        grads[2].view(-1)[17] = bad
    expected = torch.stack([g.float().norm(math.inf) if g.numel() else torch.zeros(()) for g in grads])
    torch.testing.assert_close(largest(grads), expected, rtol=0, atol=0, equal_nan=True)
