"""What the README shows works: its Python example is run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_python_examples_run(tmp_path: Path) -> None:
    distilled, spikified = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    accuracies, found = printed(distilled, tmp_path).splitlines()
    teacher, student = map(float, accuracies.split())
    assert found.startswith("{1: ")
    assert f"{student}}} {{'gaussian': {{0.0: {student}, 0.1: " in found, "read back, it is what the run says"
    assert teacher > 95.0
    assert student > 90.0
    assert len(printed(spikified, tmp_path).splitlines()) == 2


def printed(code: str, tmp_path: Path) -> str:
    environment = {**os.environ, "SPIKEDISTILL_KERNELS": "plain"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_it_names_exists() -> None:
    from spikedistill.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"(?:^|`)spikedistill ([a-z]+)", README.read_text(), flags=re.M))
    assert "train" in named
    assert named <= known


def test_every_file_it_points_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        if "://" not in target:
            assert (README.parent / target).exists(), target
