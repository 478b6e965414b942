"""Weights, checkpoints and databases from strangers: no code of theirs runs, one sentence says what is wrong."""

import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path

import forked
import pytest
import torch
from harm import Evil, refused

import spikedistill as sd
from spikedistill.build import make_network, read_config
from spikedistill.engine.checkpoint import latest_checkpoint
from spikedistill.run import train
from spikedistill.runfolder import load_state, read_state, save_network


@pytest.mark.parametrize("write", ["torch", "legacy", "pickle", "zip"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.bin", "weights.safetensors"])
def test_a_pickle_of_weights_runs_nothing(tmp_path: Path, write: str, name: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / name
    content = {"conv.weight": Evil(mark)}
    if write in ("torch", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=write == "torch")
    elif write == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", pickle.dumps(content))
            file.writestr("archive/../../mark", "out")
    assert "cannot be read as a state dict" in refused(lambda: read_state(path))
    assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))  # the file would have done harm
    assert mark.exists()


def header(content: dict[str, object] | bytes, data: bytes = b"", claim: int | None = None) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return (len(text) if claim is None else claim).to_bytes(8, "little") + text + data


LYING = {
    "longer than the file": header({}, claim=2**40),
    "negative": header({}, claim=2**64 - 1),
    "no JSON": header(b"{" * 50),
    "nested": header(b'{"a":' * 20_000),
    "offsets behind the end": header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
    "more numbers than bytes": header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}, b"0" * 8),
    "overlapping": header({k: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for k in ("a", "b")}, b"0" * 8),
    "overflowing": header({"a": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 8]}}, b"0" * 8),
    "unknown type": header({"a": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 8]}}, b"0" * 8),
    "empty": b"",
}


@pytest.mark.parametrize("lie", LYING)
def test_a_safetensors_file_whose_header_lies_is_refused(run: Path, lie: str) -> None:
    (run / "student.safetensors").write_bytes(LYING[lie])
    assert "student.safetensors' cannot be read as a state dict" in refused(lambda: sd.load(run))


def test_weights_of_other_shapes_names_and_kinds_are_refused(run: Path) -> None:
    from safetensors.torch import save_file

    path = run / "student.safetensors"
    state = read_state(path)
    missing = [  # without its count of batches a BatchNorm loads, as torch's own does
        ({name: value for name, value in state.items() if name != key}, f"has no tensor '{key}'")
        for key in state
        if not key.endswith("num_batches_tracked")
    ]
    assert len(missing) > 5
    for changed, said in (
        ({**state, "conv1.weight": state["conv1.weight"][:, :, :2]}, "'conv1.weight' is [4, 1, 2, 3]"),
        ({**state, "more": torch.zeros(1), "most": torch.zeros(1)}, "has a tensor 'more'"),
        *missing,
    ):
        save_file({key: value.contiguous() for key, value in changed.items()}, path)
        assert said in refused(lambda: sd.load(run))
    weights = run / "weights.pt"
    for kind in (
        state["fc2.weight"].to_sparse(),
        torch.empty(state["fc2.weight"].shape, device="meta"),
    ):
        torch.save({**state, "fc2.weight": kind}, weights)
        recipe = read_config(run)
        assert recipe.student is not None
        network = make_network(recipe.student, True, recipe)
        assert "cannot be" in refused(lambda network=network: load_state(network, read_state(weights), "the file"))


def test_a_config_cannot_ask_for_more_memory_than_its_weights_fill(run: Path) -> None:
    config = run / "config.yaml"
    text = config.read_text()
    for width in (10**5, 10**9):
        config.write_text(text.replace("width: 4", f"width: {width}", 1))
        message = refused(lambda: sd.load(run))
        assert "the network's is" in message or "cannot be built" in message


def test_a_checkpoint_of_a_stranger_runs_nothing(run: Path) -> None:
    mark = run / "mark"
    sound = latest_checkpoint(run / "checkpoints")
    assert sound is not None
    for old in (run / "checkpoints").iterdir():
        old.unlink()
    for content, said in (
        ({"method": Evil(mark)}, "is no checkpoint of spikedistill"),
        ([1, 2], "it holds a list"),
        ({"method": {}}, "are not of this run"),
        ({"method": {}, "optimizer": {}, "position": {"epoch": "x", "b": 1}, "rng": 0, "rng_cuda": []}, "not of this"),
        *(
            (sound | {"position": sound["position"] | position}, "are not of this run")
            for position in (
                *({"epoch": "x"}, {"epoch": -1}, {"epoch": 2}, {"epoch": True}, {"batch": 7}, {"batch": -1}),
                *({"seconds": "x"}, {"rows": [{}]}, {"rows": 3}, {"rows": [{"epoch": "1"}]}, {"sums": {"a": "b"}}),
                *({"sums": [1]}, {"sums": {1: 2.0}}, {"more": 1}),
            )
        ),
        (sound | {"rng": torch.zeros(3)}, "are not of this run"),
        (sound | {"optimizer": {"state": {}, "param_groups": []}}, "are not of this run"),
    ):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        body = buffer.getvalue()
        (run / "checkpoints" / "step-0000000001.pt").write_bytes(hashlib.sha256(body).digest() + body)
        (run / "summary.json").unlink(missing_ok=True)
        again = forked.recipe(run, "epochs=1", name="digits-2conv-snn")
        assert said in refused(lambda recipe=again: train(recipe, resume=True, verbose=False))
        assert not mark.exists()
        assert (run / "student.safetensors").exists()


def test_the_search_refuses_a_database_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    from spikedistill.search.bayes import _open

    path = tmp_path / "trials.db"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "mark")) * 100)
    assert "cannot be used" in refused(lambda: _open(path))
    assert not (tmp_path / "mark").exists()


def test_weights_are_written_as_safetensors_only(tmp_path: Path) -> None:
    save_network(torch.nn.Linear(2, 2), tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes()[8:9] == b"{"
