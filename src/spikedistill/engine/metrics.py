"""Per-epoch metrics: summed on the device during the epoch, a CSV row and TensorBoard scalars at its end."""

from __future__ import annotations

import csv
import io
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikedistill.engine.checkpoint import write_durably, write_failed
from spikedistill.engine.processes import added_up

if TYPE_CHECKING:
    from lightning_fabric import Fabric


_ZERO = torch.zeros((), dtype=torch.float64)


class EpochSums:
    """Sums of losses and correct answers over an epoch, kept on the device so that no step waits for it."""

    def __init__(self, state: dict[str, float] | None = None) -> None:
        self.sums: dict[str, Tensor] = {k: torch.tensor(v, dtype=torch.float64) for k, v in (state or {}).items()}

    def add(self, logits: Tensor, labels: Tensor, losses: dict[str, Tensor]) -> None:
        """Adds a batch."""
        count = labels.shape[0]
        correct = (logits.detach().argmax(-1) == labels).sum()
        values = {"count": torch.full_like(correct, count), "correct": correct}
        for name, loss in losses.items():
            values[f"loss/{name}"] = loss.detach() * count
        for name, value in values.items():
            self.sums[name] = self.sums[name].to(value.device) + value if name in self.sums else value.double()

    def skip(self, losses: Iterable[str] = (), batches: int = 1) -> None:
        """Counts batches that were left out because of a number that was not finite; ``losses`` are their terms."""
        self.sums["skipped"] = self.sums.get("skipped", _ZERO) + batches
        for name in ("count", "correct", *(f"loss/{name}" for name in losses)) if batches else ():
            self.sums.setdefault(name, _ZERO)  # all processes have the same names, whatever their batches gave

    def over(self, fabric: Fabric) -> EpochSums:
        """The sums over all processes."""
        if fabric.world_size == 1:
            return self
        whole = EpochSums()
        own = {"skipped": _ZERO, **self.sums}
        whole.sums = added_up(fabric, own)
        if not whole.sums["skipped"]:
            del whole.sums["skipped"]
        return whole

    def state(self) -> dict[str, float]:
        """The raw sums, for a checkpoint."""
        return {name: float(value) for name, value in self.sums.items()}

    def means(self) -> dict[str, float]:
        """``train_loss``, ``train_accuracy`` (percent), the mean of each term, and ``skipped`` where batches were."""
        raw = self.state()
        count = max(raw.get("count", 0.0), 1.0)
        terms = {name: value / count for name, value in raw.items() if name.startswith("loss/")}
        accuracy = 100.0 * raw.get("correct", 0.0) / count
        skipped = {"skipped": raw["skipped"]} if "skipped" in raw else {}
        return {"train_loss": sum(terms.values()), "train_accuracy": accuracy, **terms, **skipped}


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """Writes all rows; columns are the union of their keys in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_durably(path, text.getvalue().encode())


class ScalarBoard:
    """TensorBoard events in the run folder, one file for each start of the run; nothing stays open in between.

    TensorBoard's own writer has a thread and a queue: what is in the queue is lost when the process is killed, and an
    error on the disk arrives later or never. An epoch is one record here, written before its checkpoint.

    Args:
        folder: the run folder.
        first_epoch: epochs from here on that stand there already are replaced.
    """

    def __init__(self, folder: Path, first_epoch: int) -> None:
        from tensorboard.compat.proto import event_pb2

        proto: Any = event_pb2
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self._append(proto.Event(wall_time=time.time(), file_version="brain.Event:2"), mode="xb")
        start = proto.SessionLog(status=proto.SessionLog.START)
        self._append(proto.Event(wall_time=time.time(), step=first_epoch, session_log=start))

    def add(self, row: dict[str, float]) -> None:
        """Writes an epoch's row."""
        from tensorboard.compat.proto import event_pb2, summary_pb2

        proto: Any = summary_pb2
        values = [proto.Summary.Value(tag=name, simple_value=float(value)) for name, value in row.items()]
        events: Any = event_pb2
        self._append(events.Event(wall_time=time.time(), step=int(row["epoch"]), summary=proto.Summary(value=values)))

    def _append(self, event: Any, mode: str = "ab") -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        try:
            with self.path.open(mode) as file:
                RecordWriter(file).write(event.SerializeToString())
        except OSError as error:
            raise write_failed(self.path, error) from error
