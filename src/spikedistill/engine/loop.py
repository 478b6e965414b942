"""The only training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from spikedistill.engine.activity import Activity
from spikedistill.engine.checkpoint import latest_checkpoint, save_checkpoint
from spikedistill.engine.clock import Clock
from spikedistill.engine.diagnosis import failure, told_of_a_batch_of_one
from spikedistill.engine.finite import Found, Watch
from spikedistill.engine.metrics import EpochSums, ScalarBoard, write_csv
from spikedistill.engine.optimisation import OptimizerSettings, ScheduleSettings, learning_rate, make_optimizer
from spikedistill.engine.position import Position, read_position
from spikedistill.engine.processes import any_process, together
from spikedistill.engine.progress import Bar, Reporter
from spikedistill.engine.sharding import Whole
from spikedistill.engine.stopping import Stop
from spikedistill.errors import Stopped, TrainingFailed, UserError, first_line
from spikedistill.methods.base import Method, Progress, check_answer
from spikedistill.spiking.joining import teach_inductor

if TYPE_CHECKING:
    from lightning_fabric import Fabric


EPOCH_SECONDS = 30.0
"""At an epoch's end a checkpoint is written if the last is older: on a GPU writing one may take as long as an epoch."""

AGREE_EVERY = 8
"""Batches between two questions to all processes whether to stop: each makes them wait for one another."""


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
        checkpoint_minutes: a checkpoint is written at least this often, after the first epoch and the last, and after
            any other if the one before is more than ``EPOCH_SECONDS`` old.
        on_bad_numbers: at a loss or gradient that is not finite ``stop``, or ``skip`` the optimiser's step.
        compile: compile the method's whole step with ``torch.compile``.
    """

    epochs: int
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    clip: float | None = None
    accumulate: int = 1
    checkpoint_minutes: float = 10.0
    on_bad_numbers: str = "stop"
    compile: bool = False


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
        deadline: on ``time.monotonic``; after it training stops with a checkpoint. None for no such limit.
        weights: where the method's weights are; None for whole in every process.
        clock: of the run, if it has begun before; checkpoints hold what it tells.
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
        deadline: float | None = None,
        weights: Whole | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.stop = Stop(deadline)
        self.fabric, self.method, self.train, self.settings = fabric, method, train, settings
        self.folder, self.validate, self.reporter = folder, validate, reporter
        self.position = Position()
        self.clock = clock if clock is not None else Clock()
        self.saved = time.perf_counter()
        self.weights = weights if weights is not None else Whole(fabric, method)
        # In this order: sharing out weights makes other parameters of them.
        self.model: Any = fabric.setup_module(self.weights.trained)
        self.optimizer: Any = fabric.setup_optimizers(make_optimizer(self.weights.trained, settings.optimizer))
        if settings.compile:
            teach_inductor()
        self.step_model = torch.compile(self.model) if settings.compile else self.model
        self.watch = Watch(
            self.weights.trained,
            skip=settings.on_bad_numbers == "skip",
            waits=fabric.device.type != "cuda",
            gradients=getattr(fabric.strategy.precision, "scaler", None) is None,
            known_to_all=self.weights.known_to_all,
        )
        self.spoiled = self.checked = False
        self.activity = Activity()

    def resume(self) -> bool:
        """Goes back to the newest sound checkpoint, if there is one; says whether there was.

        Raises:
            UserError: a checkpoint that is not of this run.
        """
        folder = self.folder / "checkpoints"
        state = latest_checkpoint(folder)
        if state is None:
            return False
        try:
            self.method.load_state_dict(state["method"])
            self.weights.restore(self.optimizer, state["optimizer"])
            self.fabric.strategy.precision.load_state_dict(state.get("precision", {}))
            self.position = read_position(state["position"], self.settings.epochs, len(self.train))
            self._draw_on(state["rng"], state["rng_cuda"])
            self.clock.after(self.position.wall_seconds, self.position.compile_seconds)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = first_line(error)
            raise UserError(
                f"the checkpoints in '{folder}' are not of this run ({reason}); begin anew in another folder: out="
            ) from None
        return True

    def _draw_on(self, cpu: Tensor, gpus: list[Tensor]) -> None:
        """Random numbers go on where the checkpoint left them, which is the first process; others draw their own."""
        if self.fabric.global_rank:
            torch.manual_seed(int(cpu.long().sum()) * self.fabric.world_size + self.fabric.global_rank)
            return
        torch.set_rng_state(cpu)
        for number, state in enumerate(gpus[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, number)

    def fit(self) -> list[dict[str, float]]:
        """Trains from the present position to the last epoch; returns the epochs' metrics.

        Raises:
            Stopped: a signal came or the deadline has passed; a checkpoint of this place is written.
            TrainingFailed: a loss or gradient became NaN or infinite, or another process of the run has died.
            WriteFailed: a full disk, or another reason why a file cannot be written.
        """
        with self.stop.listening(), self.reporter.run(self.settings.epochs, len(self.train)) as bar:
            board = ScalarBoard(self.folder, self.position.epoch + 1) if self.fabric.is_global_zero else None
            with together(self.fabric, self.folder):
                while self.position.epoch < self.settings.epochs:
                    self._train_epoch(bar, board)
        return self.position.rows

    def save(self) -> None:
        """Writes a checkpoint of the present position.

        Raises:
            WriteFailed: it cannot be written.
        """
        self.saved = time.perf_counter()
        method, optimizer = self.weights.collect(), self.weights.state_of(self.optimizer)
        if not self.fabric.is_global_zero:
            return
        position = self.position
        position.wall_seconds, position.compile_seconds = self.clock.seconds, self.clock.compiling
        state = {
            "method": method.state_dict(),
            "optimizer": optimizer,
            "precision": self.fabric.strategy.precision.state_dict(),
            "position": vars(position),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        save_checkpoint(self.folder / "checkpoints", position.epoch * len(self.train) + position.batch, state)

    def _train_epoch(self, bar: Bar, board: ScalarBoard | None) -> None:
        position, spent, started = self.position, self.position.seconds, time.perf_counter()
        # What a checkpoint holds is of all processes: the first goes on with it, the others with the same names.
        sums = EpochSums(position.sums if self.fabric.is_global_zero else dict.fromkeys(position.sums, 0.0))
        if self.watch.skip:
            sums.skip(batches=0)  # a column in every epoch, and in every process
        self.model.train()
        bar.start_epoch(position.epoch, position.batch)
        images: Tensor | None = None
        with closing(self._batches()) as batches:
            for images, labels in batches:
                self._set_learning_rate()
                updated = self._step(images, labels, sums)
                position.batch += 1
                bar.advance(sums)
                # Between two updates there are gradients that no checkpoint holds.
                if updated and self._due():
                    self._check_all()
                    position.sums = sums.over(self.fabric).state()
                    position.seconds = spent + time.perf_counter() - started
                    self.save()
                    self._leave_if_asked()
        self._check_all()
        row = {"epoch": position.epoch + 1, "lr": self._learning_rate(len(self.train))}
        row |= {"seconds": spent + time.perf_counter() - started, **self._means(sums.over(self.fabric))}
        student = self.weights.collect().deployable()
        row |= self.validate(student)
        position.rows.append(row)
        position.epoch, position.batch, position.sums, position.seconds = position.epoch + 1, 0, {}, 0.0
        if board is not None:
            write_csv(self.folder / "metrics.csv", position.rows)
            board.add(row)
            bar.end_epoch(row)
            if row.get("skipped"):
                bar.note(f"epoch {position.epoch}: {row['skipped']:.0f} batches left out, their numbers not finite")
            if images is not None:
                self.activity.tell(student, images, lambda text: bar.note(f"epoch {position.epoch}: {text}"))
        leaves = any_process(self.fabric, self.stop.asked())
        first_or_last = position.epoch in (1, self.settings.epochs)
        if leaves or first_or_last or any_process(self.fabric, self._older_than(EPOCH_SECONDS)):
            self.save()
        if leaves:
            raise self._stopped("a checkpoint")

    def _older_than(self, seconds: float) -> bool:
        """Whether the last checkpoint is, or older than checkpoints shall become."""
        return time.perf_counter() - self.saved > min(seconds, 60.0 * self.settings.checkpoint_minutes)

    def _due(self) -> bool:
        """Whether to write a checkpoint here; all processes decide alike, and together only every few batches."""
        due = self.stop.asked() or self._older_than(math.inf)
        if self.fabric.world_size == 1:
            return due
        return self.position.batch % AGREE_EVERY == 0 and any_process(self.fabric, due)

    def _batches(self) -> Generator[tuple[Tensor, Tensor]]:
        """What is left of the epoch."""
        batches = self.train.epoch(self.position.epoch, self.position.batch)
        try:
            yield from batches
        except RuntimeError:
            # A signal to the whole process group ends the reading processes too, which is no failure then.
            if not self.stop.asked():
                raise
            raise self._stopped("the last checkpoint") from None

    def _leave_if_asked(self) -> None:
        if any_process(self.fabric, self.stop.asked()):
            raise self._stopped("a checkpoint")

    def _stopped(self, left: str) -> Stopped:
        epoch, batch = self.position.epoch, self.position.batch
        at = f"epoch {epoch + 1}, batch {batch} of {len(self.train)}" if epoch < self.settings.epochs else "the end"
        reason = self.stop.reason or "another process was asked to"
        return Stopped(f"'{self.folder}' stopped ({reason}) at {at}, with {left}; go on with --resume")

    def _means(self, sums: EpochSums) -> dict[str, float]:
        means = sums.means()
        if not sums.sums.get("count"):
            raise TrainingFailed(
                f"every batch of epoch {self.position.epoch + 1} gave a loss or gradient that is not finite; "
                "begin anew with a smaller optimizer.lr or clip=1.0"
            )
        return means

    def _learning_rate(self, batch: int, at_most: float = math.inf) -> float:
        # Updates happen every `accumulate` batches; the rate follows the batches, a step's last one decides.
        settings = self.settings
        epoch = min(self.position.epoch + batch / max(len(self.train), 1), at_most)
        return learning_rate(epoch, settings.epochs, settings.optimizer.lr, settings.schedule)

    def _set_learning_rate(self) -> float:
        # Schedules end at zero: the last step is taken half a step before, or a run of one step would learn nothing.
        step = min(self.settings.accumulate / len(self.train), 1.0)
        lr = self._learning_rate(self.position.batch + 1, self.settings.epochs - step / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _step(self, images: Tensor, labels: Tensor, sums: EpochSums) -> bool:
        """One batch; says whether it ended an optimiser step, or would have."""
        position, settings = self.position, self.settings
        last = position.batch + 1 == len(self.train)
        update = last or (position.batch + 1) % settings.accumulate == 0
        inputs = (images, labels, Progress(position.epoch, settings.epochs))
        self.watch.before()
        with self.fabric.no_backward_sync(self.model, enabled=not (update or self.weights.each_batch)):
            with told_of_a_batch_of_one():
                answer = self.step_model(*inputs)
            if not self.checked:
                check_answer(self.method, answer, labels)
                self.checked = True
            logits, losses = answer
            loss = torch.stack(list(losses.values())).sum()
            self.fabric.backward(loss / self._group())
        if update:
            self.weights.gradients()
        found = self.watch.after(losses, update, position.epoch, position.batch, inputs)
        if found is not None:
            if not self.watch.skip:
                self._check(found)
            self.watch.undo()
            # Gone at once, or the step's other batches would be taken for bad too.
            self.optimizer.zero_grad(set_to_none=True)
            sums.skip(losses)
            self.spoiled = True
        else:
            sums.add(logits, labels, losses)
        if update:
            # All processes leave the step out, or their weights would part.
            if not (self.watch.skip and any_process(self.fabric, self.spoiled)):
                self._update()
            self.spoiled = False
            self.optimizer.zero_grad(set_to_none=True)
        return update

    def _group(self) -> int:
        """How many batches the update that this one belongs to has: an epoch's last may have fewer."""
        first = self.position.batch - self.position.batch % self.settings.accumulate
        return min(self.settings.accumulate, len(self.train) - first)

    def _update(self) -> None:
        if self.settings.clip is not None:
            self.weights.clip(self.model, self.optimizer, self.settings.clip)
        self.optimizer.step()

    def _check_all(self) -> None:
        """Before anything is written: nothing that is not finite shall be."""
        epoch, batch = self.position.epoch, self.position.batch - 1
        self._check(self.watch.settle() or self.weights.agreed(self.watch.state(self.optimizer, epoch, batch)))

    def _check(self, found: Found | None) -> None:
        """Ends the run at numbers that are not finite."""
        if found is not None:
            batches, moved_on = len(self.train), not self.watch.waits
            method = self.weights.collect().to(self.fabric.device)
            raise failure(found, method, self.folder, batches, self.fabric.autocast, moved_on)
