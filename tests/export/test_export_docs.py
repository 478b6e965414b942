"""What docs/export.md shows works, and what it says of the nodes is so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import typer.main

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def test_the_python_blocks_run_one_after_the_other(tmp_path: Path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S))
    environment = {**os.environ, "SPIKEDISTILL_KERNELS": "plain"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "50 of 50 predictions equal" in done.stdout
    assert "| network | 2conv |" in done.stdout


def test_the_commands_are_known():
    from spikedistill.cli import app

    export = typer.main.get_command(app).commands["export"]
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.S) for line in block.splitlines()
    ]
    assert lines
    for line in lines:
        assert line.startswith("spikedistill export ")
        export.make_context("export", line.split()[2:])


def test_the_nodes_that_can_be_read_are_named():
    from spikedistill.export.steps import STEPS

    named = re.search(r"graphs without cycles, of (.*?)\.", PAGE.read_text(), flags=re.S)
    assert named is not None
    assert set(re.split(r",\s+", named[1])) == set(STEPS) - {"Input", "Output"}
