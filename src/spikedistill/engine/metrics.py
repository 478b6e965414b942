"""Per-epoch metrics: summed on the device during the epoch, a CSV row and TensorBoard scalars at its end."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from spikedistill.engine.checkpoint import write_durably


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

    def state(self) -> dict[str, float]:
        """The raw sums, for a checkpoint."""
        return {name: float(value) for name, value in self.sums.items()}

    def means(self) -> dict[str, float]:
        """``train_loss``, ``train_accuracy`` (percent) and the mean of each term."""
        raw = self.state()
        count = max(raw.get("count", 0.0), 1.0)
        terms = {name: value / count for name, value in raw.items() if name.startswith("loss/")}
        return {"train_loss": sum(terms.values()), "train_accuracy": 100.0 * raw.get("correct", 0.0) / count, **terms}


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """Writes all rows; columns are the union of their keys in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_durably(path, text.getvalue().encode())


@contextmanager
def scalar_board(folder: Path, first_epoch: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """TensorBoard events in the run folder; epochs from ``first_epoch`` on that stand there already are replaced."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=first_epoch) as writer:

        def add(row: dict[str, float]) -> None:
            for name, value in row.items():
                writer.add_scalar(name, value, int(row["epoch"]))

        yield add
