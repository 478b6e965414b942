"""``compile: true``: the whole step through torch.compile is the same training."""

import pytest
import torch

from spikedistill.recipebook import read_recipe
from spikedistill.run import train

SMALL = ["data.subset=48", "data.test_subset=48", "epochs=2", "batch_size=16", "student.width=4"]
TEACHER = ["teacher.epochs=1", "teacher.width=4"]


# Dynamo itself makes an instance of an autograd.Function while it traces one (torch 2.13).
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
# Inductor takes a minute for what is traced; tracing is where our code could stand in the way.
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["snn", "kdsnn-feature"])
def test_compiled_training_equals_eager_training(tmp_path, monkeypatch, method, backend):
    compiled, plain = [], torch.compile

    def compile_with(module, *args, **kwargs):
        compiled.append(module)
        return plain(module, *args, **kwargs | {"backend": backend})

    monkeypatch.setattr(torch, "compile", compile_with)
    runs = {}
    for choice in ("false", "true"):
        overrides = [*SMALL, *([] if method == "snn" else TEACHER), f"compile={choice}", f"out={tmp_path / choice}"]
        runs[choice] = train(read_recipe(f"digits-2conv-{method}", overrides), verbose=False)
        assert bool(compiled) == (choice == "true")
    ours, theirs = (runs[choice].student.state_dict() for choice in ("true", "false"))
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-4, msg=key)
