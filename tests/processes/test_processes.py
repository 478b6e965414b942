"""Training on several processes: the same result as on one, and a clean end when one of them dies."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import nn

from spikedistill.errors import Stopped, UserError
from spikedistill.models.elastic import SlicedBatchNorm2d
from spikedistill.models.syncnorm import separate, synchronise
from spikedistill.recipebook import read_recipe
from spikedistill.report.runs import read_run
from spikedistill.run import train

SMALL = ["student.width=4", "epochs=2", "batch_size=16", "data.subset=64", "data.test_subset=32", "device=cpu"]
TEACHER = ["teacher.width=4", "teacher.epochs=1", "teacher.batch_size=16"]


def command(recipe: str, out: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "spikedistill", "train", recipe, *SMALL, f"out={out}", *overrides]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "SPIKEDISTILL_KERNELS": "plain"}


@pytest.mark.parametrize(("method", "extra"), [("sakd", TEACHER), ("joint-asnn", [])])
def test_two_processes_train_as_one_does(tmp_path, method, extra, monkeypatch):
    """Augmented batches, BatchNorm, the frozen teacher (trained by both, too), metrics: all as on one process."""
    monkeypatch.setenv("SPIKEDISTILL_KERNELS", "plain")
    recipe, augment = f"digits-2conv-{method}", "data.augment=[crop:1]"
    one, two = tmp_path / "one", tmp_path / "two"
    train(read_recipe(recipe, [*SMALL, *extra, augment, f"out={one}"]), verbose=False)
    done = subprocess.run(
        command(recipe, two, *extra, augment, "devices=2"), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1  # one of them speaks
    for name in ("student.safetensors", *(["teacher/student.safetensors"] if extra else ["ann.safetensors"])):
        theirs, ours = load_file(one / name), load_file(two / name)
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-5, msg=f"{name} {key}")
    alone, shared = read_run(one), read_run(two)
    assert shared.accuracy == alone.accuracy and shared.device.startswith("2 x ")
    for column in set(alone.metrics) - {"seconds"}:
        assert shared.metrics[column] == pytest.approx(alone.metrics[column], rel=1e-5), column


def test_a_dead_process_ends_the_others_and_the_run_goes_on_alone(tmp_path):
    out = tmp_path / "run"
    running = subprocess.Popen(
        command("digits-2conv-snn", out, "devices=2", "epochs=1000"),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: list(out.glob("checkpoints/step-*.pt")), running)
        (child,) = children(running.pid)
        os.kill(child, signal.SIGKILL)
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode != 0
    assert "another process of the run" in said and "Traceback" not in said
    begun = read_run(out).epochs_done
    alone = read_recipe("digits-2conv-snn", [*SMALL, "epochs=1000", f"out={out}"])
    with pytest.raises(Stopped, match="time is up"):
        train(alone, resume=True, verbose=False, deadline=time.monotonic() + 2)
    assert read_run(out).epochs_done > begun >= 1


def wait_for(there, process, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path):
    with pytest.raises(UserError, match="16 cannot be shared evenly by 3"):
        train(read_recipe("digits-2conv-snn", [*SMALL, "devices=3", f"out={tmp_path / 'run'}"]), verbose=False)
    assert not (tmp_path / "run").exists()


def test_a_norm_that_cannot_be_shared_is_refused_by_its_path():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), SlicedBatchNorm2d(4))
    with pytest.raises(UserError, match="'1' is a SlicedBatchNorm2d"):
        synchronise(network)


def test_norms_are_given_back_as_they_were():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(3))
    assert [type(m) for m in separate(synchronise(network))] == [nn.BatchNorm2d, nn.BatchNorm1d]


def _compare(rank: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    for norm, shape in ((nn.BatchNorm2d(3), (6, 3, 4, 4)), (nn.BatchNorm1d(3, affine=False), (6, 3))):
        norm, x = norm.double(), torch.randn(shape, dtype=torch.float64) * 3 + 5
        whole, shared = copy.deepcopy(norm), synchronise(norm)
        everything = x.clone().requires_grad_()
        whole(everything).sin().square().sum().backward()
        own = slice(0, 2) if rank == 0 else slice(2, 6)  # unequal shares
        part = x[own].clone().requires_grad_()
        shared(part).sin().square().sum().backward()
        torch.testing.assert_close(part.grad, everything.grad[own], rtol=0, atol=1e-12)
        for mine, theirs in zip(shared.parameters(), whole.parameters(), strict=True):
            dist.all_reduce(mine.grad)
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-12)
        for mine, theirs in zip(shared.buffers(), whole.buffers(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
        torch.testing.assert_close(shared.eval()(x), whole.eval()(x))
    dist.destroy_process_group()


def test_shared_statistics_are_those_of_the_whole_batch(unused_port):
    mp.spawn(_compare, args=(unused_port,), nprocs=2)
