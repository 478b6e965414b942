"""The example of a network of one's own, on fewer pictures and epochs than it takes by itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

import spikedistill as sd

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_network.py"


def test_own_network(tmp_path: Path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("own_network", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_network", example)
    spec.loader.exec_module(example)
    accuracies = example.main(None, tmp_path, epochs=2)
    ann = accuracies.pop("ANN")
    assert ann > 80.0
    assert accuracies["SNN, conversion only, T=32"] > ann - 5.0
    assert accuracies["SNN, distilled, T=4"] > ann - 5.0
    assert accuracies["NIR file, T=4"] == accuracies["SNN, distilled, T=4"]
    assert "energy of computation, SNN" in capsys.readouterr().out
    assert "MyNetwork (spikified)" in (tmp_path / "own_network.nir.md").read_text()
    images = torch.rand(2, 1, 8, 8)
    neuron = sd.IF(reset="soft", surrogate="arctan")
    again = sd.spikify(example.MyNetwork(1, 10), 4, neuron, example_input=images, calibration=images)
    assert sd.load(tmp_path / "snn", network=again).timesteps == 4
