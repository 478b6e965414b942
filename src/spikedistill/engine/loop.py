"""The only training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from spikedistill.engine.checkpoint import latest_checkpoint, save_checkpoint
from spikedistill.engine.metrics import EpochSums, scalar_board, write_csv
from spikedistill.engine.optimisation import OptimizerSettings, ScheduleSettings, learning_rate, make_optimizer
from spikedistill.engine.progress import Bar, Reporter
from spikedistill.errors import TrainingFailed
from spikedistill.methods.base import Method, Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Batches(Protocol):
    """What the loop trains on."""

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]: ...


@dataclass(frozen=True)
class TrainSettings:
    """What the loop needs to know.

    Attributes:
        epochs: how many.
        optimizer, schedule: see ``optimisation``.
        clip: largest norm of the gradient, None for no clipping.
        accumulate: batches per optimiser step.
        checkpoint_minutes: a checkpoint is written at least this often (and after every epoch).
        compile: compile the method's whole step with ``torch.compile``.
    """

    epochs: int
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    clip: float | None = None
    accumulate: int = 1
    checkpoint_minutes: float = 10.0
    compile: bool = False


@dataclass
class Position:
    """Where a run stands: the epoch, the next batch in it, and the rows of the epochs behind."""

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Trains a method on batches, leaving metrics and checkpoints in ``folder``.

    Args:
        fabric: device, precision and processes.
        method: what is trained (already on its settings; moved to the device here).
        train: training batches.
        settings: see ``TrainSettings``.
        folder: the run folder, which exists.
        validate: called after every epoch with the deployable student, returns metrics for the epoch's row.
        reporter: shows progress.
    """

    def __init__(
        self,
        fabric: Fabric,
        method: Method,
        train: Batches,
        settings: TrainSettings,
        folder: Path,
        validate: Callable[[torch.nn.Module], dict[str, float]],
        reporter: Reporter,
    ) -> None:
        self.fabric, self.method, self.train, self.settings = fabric, method, train, settings
        self.folder, self.validate, self.reporter = folder, validate, reporter
        self.position = Position()
        optimizer = make_optimizer(method, settings.optimizer)
        self.model: Any
        self.optimizer: Any
        self.model, self.optimizer = fabric.setup(method, optimizer)
        self.step_model = torch.compile(self.model) if settings.compile else self.model

    def resume(self) -> bool:
        """Goes back to the newest sound checkpoint, if there is one; says whether there was."""
        state = latest_checkpoint(self.folder / "checkpoints")
        if state is None:
            return False
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.position = Position(**state["position"])
        torch.set_rng_state(state["rng"])
        if state["rng_cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["rng_cuda"])
        return True

    def fit(self) -> list[dict[str, float]]:
        """Trains from the present position to the last epoch; returns the epochs' metrics."""
        first = self.position.epoch + 1
        with (
            self.reporter.run(self.settings.epochs, len(self.train)) as bar,
            scalar_board(self.folder, first) as board,
        ):
            while self.position.epoch < self.settings.epochs:
                self._train_epoch(bar, board)
        return self.position.rows

    def save(self) -> None:
        """Writes a checkpoint of the present position."""
        if not self.fabric.is_global_zero:
            return
        position = self.position
        state = {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": vars(position),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        save_checkpoint(self.folder / "checkpoints", position.epoch * len(self.train) + position.batch, state)

    def _train_epoch(self, bar: Bar, board: Callable[[dict[str, float]], None]) -> None:
        position, started = self.position, time.perf_counter()
        spent, saved = position.seconds, started
        sums = EpochSums(position.sums)
        self.model.train()
        bar.start_epoch(position.epoch, position.batch)
        for images, labels in self.train.epoch(position.epoch, position.batch):
            lr = self._set_learning_rate()
            self._step(images, labels, sums)
            position.batch += 1
            bar.advance(sums)
            now = time.perf_counter()
            if now - saved > 60.0 * self.settings.checkpoint_minutes and position.batch < len(self.train):
                position.sums, position.seconds, saved = sums.state(), spent + now - started, now
                self.save()
        means = sums.means()
        if means["train_loss"] != means["train_loss"]:
            raise TrainingFailed(
                f"the loss became NaN in epoch {position.epoch + 1}; a smaller optimizer.lr or clip=1.0 usually helps"
            )
        row = {"epoch": position.epoch + 1, "lr": lr, "seconds": spent + time.perf_counter() - started, **means}
        row |= self.validate(self.method.deployable())
        position.rows.append(row)
        position.epoch, position.batch, position.sums, position.seconds = position.epoch + 1, 0, {}, 0.0
        if self.fabric.is_global_zero:
            write_csv(self.folder / "metrics.csv", position.rows)
            board(row)
            bar.end_epoch(row)
        self.save()

    def _set_learning_rate(self) -> float:
        # Updates happen every `accumulate` batches; the rate follows the batches, a step's first one decides.
        position, settings = self.position, self.settings
        epoch = position.epoch + (position.batch + 1) / max(len(self.train), 1)
        lr = learning_rate(epoch, settings.epochs, settings.optimizer.lr, settings.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _step(self, images: Tensor, labels: Tensor, sums: EpochSums) -> None:
        position, settings = self.position, self.settings
        last = position.batch + 1 == len(self.train)
        update = last or (position.batch + 1) % settings.accumulate == 0
        with self.fabric.no_backward_sync(self.model, enabled=not update):
            logits, losses = self.step_model(images, labels, Progress(position.epoch, settings.epochs))
            loss = torch.stack(list(losses.values())).sum()
            self.fabric.backward(loss / settings.accumulate)
        if update:
            if settings.clip is not None:
                self.fabric.clip_gradients(self.model, self.optimizer, max_norm=settings.clip, error_if_nonfinite=False)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        sums.add(logits, labels, losses)
