"""The loop: a run that was interrupted ends like one that was not; accumulation equals a larger batch."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import spikedistill as sd
from spikedistill.engine import OptimizerSettings, ScheduleSettings, Trainer, TrainSettings
from spikedistill.engine.devices import at_hand, make_fabric, resolve_device, resolve_precision
from spikedistill.engine.metrics import EpochSums
from spikedistill.engine.progress import Reporter
from spikedistill.errors import TrainingFailed, UserError
from spikedistill.methods import METHODS


class FixedBatches:
    """Random images in a fixed order; stops with an error after ``fail_after`` batches, as a killed process would."""

    def __init__(self, count: int, size: int, fail_after: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(count, size, 1, 8, 8, generator=generator)
        self.labels = torch.randint(0, 3, (count, size), generator=generator)
        self.fail_after = fail_after

    def __len__(self) -> int:
        return len(self.images)

    def epoch(self, number: int, start: int = 0):
        for batch in range(start, len(self)):
            if self.fail_after is not None:
                if self.fail_after == 0:
                    raise KeyboardInterrupt
                self.fail_after -= 1
            yield self.images[batch], self.labels[batch]


def trainer(folder: Path, batches: FixedBatches, *, spiking: bool = True, **settings: object) -> Trainer:
    torch.manual_seed(0)
    student = sd.create_model(
        "2conv", num_classes=3, in_channels=1, image_size=8, width=4, spiking=spiking, timesteps=2
    )
    method = METHODS["snn"](student, None, METHODS["snn"].Settings(), torch.zeros(2, 1, 8, 8))
    folder.mkdir(exist_ok=True)
    chosen = TrainSettings(
        epochs=3, optimizer=OptimizerSettings("sgd", lr=0.1), schedule=ScheduleSettings("cosine"), **settings
    )
    fabric = make_fabric(torch.device("cpu"), "32")
    return Trainer(
        fabric, method, batches, chosen, folder, lambda _network: {"validation_accuracy": 0.0}, Reporter("", False)
    )


def test_a_batch_of_one_image_that_a_batchnorm_cannot_use_is_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = sd.create_model("resnet18", num_classes=3, in_channels=1, width=4, spiking=False)
    method = METHODS["ann"](student, None, METHODS["ann"].Settings(), torch.zeros(2, 1, 8, 8))
    run = Trainer(
        make_fabric(torch.device("cpu"), "32"),
        method,
        FixedBatches(2, 1),
        TrainSettings(epochs=1),
        tmp_path,
        lambda _network: {},
        Reporter("", False),
    )
    with pytest.raises(UserError, match="one image in a batch; set batch_size to at least 2"):
        run.fit()


class TwoProcesses:
    """What ``EpochSums.over`` asks of a fabric; the other process's values are given."""

    world_size, device = 2, torch.device("cpu")

    def __init__(self, other: EpochSums) -> None:
        self.other = other

    def all_reduce(self, values: Tensor, reduce_op: str) -> Tensor:
        theirs = {"skipped": torch.zeros(()), **self.other.sums}
        assert len(theirs) == len(values), "a collective of two sizes hangs or crashes"
        return values + torch.stack([theirs[name].double() for name in sorted(theirs)])


def test_processes_agree_on_what_they_add_up_where_one_has_nothing_of_its_own() -> None:
    logits, labels, losses = torch.eye(3), torch.tensor([0, 1, 0]), {"task": torch.tensor(2.0)}
    first, skipping = EpochSums(), EpochSums()
    first.add(logits, labels, losses)
    skipping.skip(losses)
    whole = first.over(TwoProcesses(skipping))  # type: ignore[arg-type]
    assert whole.state() == {"count": 3.0, "correct": 2.0, "loss/task": 6.0, "skipped": 1.0}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_resumes_at_an_epochs_end_has_the_names_of_the_first(tmp_path: Path, rank: int) -> None:
    """A checkpoint may lie behind an epoch's last batch; nothing is left then from which names could be learned."""
    begun = trainer(tmp_path / "a", FixedBatches(2, 6), checkpoint_minutes=1e-9)
    begun.validate = lambda _network: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        begun.fit()
    resumed = trainer(tmp_path / "a", FixedBatches(2, 6))
    assert resumed.resume() and resumed.position.batch == 2
    seen = []

    class Watched(EpochSums):
        def over(self, fabric):
            seen.append(self.state())
            return self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikedistill.engine.loop.EpochSums", Watched)
        patch.setattr(type(resumed.fabric), "is_global_zero", property(lambda _self: rank == 0))
        resumed.validate = begun.validate
        with pytest.raises((KeyboardInterrupt, TrainingFailed)):
            resumed.fit()
    assert set(seen[0]) == set(resumed.position.sums) > {"count", "correct"}
    assert (seen[0]["count"] > 0) == (rank == 0)


def weights(run: Trainer) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in run.method.state_dict().items()}


@pytest.mark.parametrize("stopped_after", [2, 4, 6, 11])
def test_an_interrupted_run_ends_as_an_undisturbed_one_bit_for_bit(tmp_path: Path, stopped_after: int) -> None:
    undisturbed = trainer(tmp_path / "a", FixedBatches(4, 6))
    rows = undisturbed.fit()

    interrupted = trainer(tmp_path / "b", FixedBatches(4, 6, stopped_after), checkpoint_minutes=0.0)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit()
    torch.manual_seed(99)
    resumed = trainer(tmp_path / "b", FixedBatches(4, 6), checkpoint_minutes=0.0)
    assert resumed.resume()
    assert (resumed.position.epoch, resumed.position.batch) == divmod(stopped_after, 4)
    resumed_rows = resumed.fit()

    for key, value in weights(undisturbed).items():
        assert torch.equal(value, weights(resumed)[key]), key
    for one, other in zip(rows, resumed_rows, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    written = list(csv.DictReader((tmp_path / "b" / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in written] == ["1", "2", "3"]


def test_accumulation_equals_the_larger_batch(tmp_path: Path) -> None:
    small, large = FixedBatches(4, 6), FixedBatches(4, 6)
    large.images, large.labels = small.images.view(2, 12, 1, 8, 8), small.labels.view(2, 12)
    # The ANN, whose loss is continuous: in an SNN rounding alone may move a spike.
    runs = [trainer(tmp_path / "a", small, spiking=False, accumulate=2), trainer(tmp_path / "b", large, spiking=False)]
    for run in runs:
        # BatchNorm in eval mode: its statistics are per forward pass and so differ between the two by design.
        run.method.eval()
        run.model.train = lambda _mode=True: None
        run._set_learning_rate = lambda run=run: [group.update(lr=0.1) for group in run.optimizer.param_groups] and 0.1
        run.fit()
    for key, value in weights(runs[0]).items():
        torch.testing.assert_close(value, weights(runs[1])[key], rtol=1e-4, atol=1e-6)


def test_the_last_update_of_an_epoch_is_the_mean_of_the_batches_it_has(tmp_path: Path) -> None:
    """Five batches, two an update: the third update's gradient is the fifth batch's, not half of it."""
    run = trainer(tmp_path / "a", FixedBatches(5, 6), spiking=False, accumulate=2)
    groups = []
    for batch in range(5):
        run.position.batch = batch
        groups.append(run._group())
    assert groups == [2, 2, 2, 2, 1]
    run.position.batch = 4
    images, labels = run.train.images[4], run.train.labels[4]
    run.method.eval()
    run.optimizer.step = lambda: None
    run.optimizer.zero_grad = lambda **_: None
    run._step(images, labels, EpochSums(None))
    got = [p.grad.clone() for p in run.method.parameters()]
    loss = torch.nn.functional.cross_entropy(run.method.student(images), labels)
    for ours, theirs in zip(got, torch.autograd.grad(loss, list(run.method.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_devices_and_precisions_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="no such device 'gpu0'"):
        resolve_device("gpu0")
    with pytest.raises(UserError, match="unknown precision 'fp8'"):
        resolve_precision("fp8", torch.device("cpu"))
    with pytest.raises(UserError, match="precision 16 needs a GPU"):
        resolve_precision("16", torch.device("cpu"))
    assert resolve_precision("auto", torch.device("cpu")) in ("32", "bf16")


def test_what_a_gpu_cannot_do_is_not_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one older GPU, which emulates bf16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_precision("auto", torch.device("cuda")) == "32"
    with pytest.raises(UserError, match="'cuda:5' was asked for, but there are only cuda:0 to 0"):
        resolve_device("cuda:5")
    with pytest.raises(UserError, match="no such device 'meta'"):
        resolve_device("meta")
    assert at_hand("cuda:5") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert at_hand("cuda:5") == torch.device("cpu")


@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}])
@pytest.mark.parametrize("name", ["cosine", "onecycle"])
def test_a_run_of_one_step_learns_something(tmp_path: Path, settings: dict, name: str) -> None:
    """Schedules end at a rate of zero, and the only step is the last one."""
    run = trainer(tmp_path / "run", FixedBatches(settings.get("accumulate", 1), 6), **settings)
    run.settings = replace(run.settings, epochs=1, schedule=ScheduleSettings(name))
    before = weights(run)
    run.fit()
    assert any(not torch.equal(value, before[key]) for key, value in weights(run).items() if key.endswith("weight"))
    assert run.optimizer.param_groups[0]["lr"] > 0.01
