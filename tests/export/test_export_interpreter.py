"""NIR files as networks: hand-made graphs against hand-computed answers, other readers, and what is refused."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import h5py
import nir
import nirtorch
import numpy as np
import pytest
import torch
from roundtrip import settle, through_a_file
from torch import nn

import spikedistill as sd
from spikedistill.export import About, NirNetwork
from spikedistill.export.nir_file import nir_bytes


def ones(*shape: int, value: float = 1.0) -> np.ndarray:
    return np.full(shape, value, dtype=np.float32)


def chain(*nodes: nir.NIRNode, size: int = 2, check: bool = True) -> nir.NIRGraph:
    """Input, the nodes one after the other, output."""
    return nir.NIRGraph.from_list(
        nir.Input(np.array([size])), *nodes, nir.Output(nodes[-1].output_type["output"]), type_check=check
    )


def test_a_lif_by_hand():
    """tau dv/dt = (v_leak - v) + r x at dt = 1, tau = 4, r = 2, v_leak = 1: v becomes 0.75 v + 0.5 x + 0.25."""
    lif = nir.LIF(ones(1, value=4), ones(1, value=2), ones(1), ones(1, value=2), ones(1, value=-1))
    network = NirNetwork(chain(lif, size=1), dt=1.0)
    # v: 1.75 no; 2.5625 yes, to -1; -0.5 no; 2 no (not above); 2.75 yes
    currents = torch.tensor([3.0, 2.0, 0.0, 4.25, 2.0])
    expected, v = [], 0.0
    for x in currents.tolist():
        v = 0.75 * v + 0.5 * x + 0.25
        expected.append(float(v > 2.0))
        v = -1.0 if v > 2.0 else v
    assert expected == [0.0, 1.0, 0.0, 0.0, 1.0]
    assert network(currents.view(-1, 1, 1), per_step=True).flatten().tolist() == expected
    assert network(currents.view(-1, 1, 1)).item() == pytest.approx(0.4)


def test_an_integrator_by_hand():
    network = NirNetwork(chain(nir.IF(ones(1, value=0.5), ones(1, value=1.0)), size=1), timesteps=6, dt=1.0)
    assert network(torch.tensor([[1.0]]), per_step=True).flatten().tolist() == [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    leaky = NirNetwork(chain(nir.LI(ones(1, value=2.0), ones(1), ones(1, value=0.0)), size=1), timesteps=3, dt=1.0)
    assert leaky(torch.tensor([[1.0]]), per_step=True).flatten().tolist() == [0.5, 0.75, 0.875]


def test_nodes_without_a_state():
    nodes = {
        "input": nir.Input(np.array([1, 4, 4])),
        "conv": nir.Conv2d((4, 4), ones(2, 1, 3, 3), 1, "same", 1, 1, ones(2, value=0.5)),
        "sum": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "average": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([2, 1, 1])}, 0, -1),
        "scale": nir.Scale(np.array([1.0, 2.0], dtype=np.float32)),
        "threshold": nir.Threshold(ones(2, value=30.0)),
        "output": nir.Output(np.array([2])),
    }
    image, names = torch.ones(1, 1, 4, 4), list(nodes)
    network = NirNetwork(nir.NIRGraph(dict(nodes), list(pairwise(names))))
    assert network.timesteps == 1
    assert network(image).tolist() == [[0.0, 1.0]]
    del nodes["threshold"]
    names.remove("threshold")
    # Corners 4, edges 6, middle 9, each and 0.5: 27 a quarter of the image.
    network = NirNetwork(nir.NIRGraph(nodes, list(pairwise(names))))
    assert network(image).tolist() == [[27.0, 54.0]]


def test_edges_that_meet_are_added():
    eye = nir.Linear(np.eye(2, dtype=np.float32))
    graph = nir.NIRGraph(
        nodes={
            "input": nir.Input(np.array([2])),
            "double": nir.Scale(ones(2, value=2.0)),
            "eye": eye,
            "output": nir.Output(np.array([2])),
        },
        edges=[("input", "double"), ("input", "eye"), ("double", "eye"), ("eye", "output"), ("input", "output")],
    )
    assert NirNetwork(graph)(torch.tensor([[1.0, -2.0]])).tolist() == [[4.0, -8.0]]


class Cell(nn.Module):
    """A NIR LIF or IF for nirtorch, written from NIR's equations."""

    def __init__(self, node: nir.LIF | nir.IF, dt: float = 1e-4) -> None:
        super().__init__()
        share = dt / torch.from_numpy(node.tau).double() if isinstance(node, nir.LIF) else torch.tensor(dt).double()
        self.decay = (1.0 - share).float() if isinstance(node, nir.LIF) else torch.tensor(1.0)
        self.gain = (share * torch.from_numpy(node.r)).float()
        self.threshold, self.reset = torch.from_numpy(node.v_threshold), torch.from_numpy(node.v_reset)

    def forward(self, x, state=None):
        v = (torch.zeros_like(x) if state is None else state) * self.decay + x * self.gain
        spikes = v > self.threshold
        return spikes.float(), torch.where(spikes, self.reset, v)


def affine(node: nir.Affine) -> nn.Linear:
    layer = nn.Linear(node.weight.shape[1], node.weight.shape[0])
    layer.weight.data, layer.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
    return layer


@pytest.mark.parametrize("name", ["2conv", "resnet14"])
@torch.no_grad()
def test_nirtorch_reads_our_files(name: str, tmp_path: Path):
    torch.manual_seed(0)
    sizes = {"num_classes": 5, "in_channels": 3, "width": 4} | ({"image_size": 8} if name == "2conv" else {})
    network = sd.create_model(name, **sizes, spiking=True, timesteps=3, neuron=sd.LIF(0.5, threshold=0.5))
    images = torch.randn(4, 3, 8, 8)
    settle(network, images)
    path = tmp_path / "network.nir"
    sd.export_nir(network, path, images)
    cells = {nir.LIF: Cell, nir.IF: Cell, nir.Affine: affine}
    expected = network(images, per_step=True)
    for i, image in enumerate(images[:2]):  # nirtorch flattens what stands in front, so a batch must not
        other, state = nirtorch.nir_to_torch(nir.read(path), cells), None
        for step in range(3):
            logits, state = other(image) if state is None else other(image, state)
            torch.testing.assert_close(logits, expected[step, i], rtol=0.0, atol=1e-4)


def test_spikingjelly_reads_our_files():
    exchange = pytest.importorskip(
        "spikingjelly.activation_based.nir_exchange.from_nir", reason="SpikingJelly is a peer, not a dependency"
    )
    network = sd.create_model("2conv", num_classes=5, in_channels=3, image_size=8, width=4, spiking=True, timesteps=2)
    images = torch.randn(4, 3, 8, 8)
    settle(network, images)
    other, state = exchange.import_from_nir(nir.read(io.BytesIO(nir_bytes(network, images, About(2))))), None
    with torch.no_grad():
        for step in network(images, per_step=True):
            logits, state = other(images) if state is None else other(images, state)
            torch.testing.assert_close(logits, step, rtol=0.0, atol=1e-4)


def test_snntorch_reads_our_files():
    """Networks of LIF layers; its IF leaks and takes no resistance, so max pooling is beyond it."""
    peer = pytest.importorskip("snntorch.import_nir", reason="snnTorch is a peer, not a dependency")
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 10))
    images = torch.rand(4, 1, 8, 8)
    network = sd.spikify(ann, timesteps=4, neuron=sd.LIF(0.5, threshold=0.3), example_input=images)
    other, state = peer.import_from_nir(nir.read(io.BytesIO(nir_bytes(network, images, About(4))))), None
    with torch.no_grad():
        for step in network(images, per_step=True):
            logits, state = other(images) if state is None else other(images, state)
            torch.testing.assert_close(logits, step, rtol=0.0, atol=1e-4)


def linear(*shape: int) -> nir.Linear:
    return nir.Linear(ones(*shape))


def broken(edges: list[tuple[str, str]], **nodes: nir.NIRNode) -> nir.NIRGraph:
    ends = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    return nir.NIRGraph(nodes=ends | nodes, edges=edges, type_check=False)


BROKEN = {
    "a cycle": (
        broken([("input", "a"), ("a", "b"), ("b", "a"), ("b", "output")], a=linear(2, 2), b=linear(2, 2)),
        "node 'a' is part of a cycle",
    ),
    "a missing node": (broken([("input", "a"), ("a", "output")]), "names 'a', which is no node"),
    "nothing leads there": (
        broken([("input", "output"), ("a", "output")], a=linear(2, 2)),
        "nothing leads to node 'a'",
    ),
    "two edges": (broken([("input", "output"), ("input", "output")]), "two edges from 'input' to 'output'"),
    "a wrong shape": (
        broken([("input", "a"), ("a", "output")], a=linear(2, 3)),
        r"node 'a' \(Linear\) does not take \[2\] of 'input'",
    ),
    "a wrong size of neurons": (
        broken([("input", "a"), ("a", "output")], a=nir.IF(ones(1), ones(1))),
        r"node 'a' \(IF\) is made for \[1\] and gets \[2\] of 'input'",
    ),
    "a sum of two shapes": (
        broken([("input", "a"), ("input", "b"), ("a", "b"), ("b", "output")], a=linear(3, 2), b=nir.Linear(ones(2, 2))),
        r"node 'b' adds up \[2\] of 'input' and \[3\] of 'a', which differ in shape",
    ),
    "no output": (
        nir.NIRGraph({"input": nir.Input(np.array([2]))}, [], type_check=False),
        "a graph with one Output is needed, and it has 0",
    ),
    "an unknown node": (
        broken([("input", "a"), ("a", "output")], a=nir.Delay(ones(2))),
        "node 'a' is a Delay, which cannot be run",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_run(name: str, tmp_path: Path):
    graph, reason = BROKEN[name]
    nir.write(tmp_path / "broken.nir", graph)
    with pytest.raises(sd.UserError, match=reason) as refused:
        sd.read_nir(tmp_path / "broken.nir")
    assert "\n" not in str(refused.value)


def test_what_is_no_file(tmp_path: Path):
    with pytest.raises(sd.UserError, match="no NIR file at"):
        sd.read_nir(tmp_path / "missing.nir")
    (tmp_path / "text.nir").write_text("no HDF5")
    with pytest.raises(sd.UserError, match="is not a NIR file"):
        sd.read_nir(tmp_path / "text.nir")
    with h5py.File(tmp_path / "other.nir", "w") as file:
        file["data"] = 1
    with pytest.raises(sd.UserError, match="is not a NIR file"):
        sd.read_nir(tmp_path / "other.nir")
    nir.write(tmp_path / "kind.nir", chain(linear(2, 2)))
    with h5py.File(tmp_path / "kind.nir", "a") as file:
        del file["node/nodes/linear/type"]
        file["node/nodes/linear/type"] = "Quantum"
    with pytest.raises(sd.UserError, match="node 'linear' is a Quantum"):
        sd.read_nir(tmp_path / "kind.nir")
    with h5py.File(tmp_path / "kind.nir", "a") as file:
        file["node/nodes/linear/type"][()] = "Linear"
        del file["node/nodes/linear/weight"]
    with pytest.raises(sd.UserError, match=r"cannot be read as NIR: .*weight"):
        sd.read_nir(tmp_path / "kind.nir")


def test_numbers_that_are_none(tmp_path: Path):
    graph = chain(linear(2, 2))
    for metadata, reason in [({"dt": "soon"}, "'dt' is 'soon'"), ({"dt": -1.0}, "positive number of seconds")]:
        graph.metadata = metadata
        with pytest.raises(sd.UserError, match=reason):
            NirNetwork(graph)
    graph.metadata = {"timesteps": 0}
    with pytest.raises(sd.UserError, match="timesteps must be a whole number"):
        NirNetwork(graph)
    graph.metadata = {}
    with pytest.raises(sd.UserError, match=r"takes images \[B, 2\] or sequences \[T, B, 2\], not \[3, 4\]"):
        NirNetwork(graph)(torch.zeros(3, 4))


def test_it_runs_where_networks_run(trained, digits):
    """As any spiking network it can be evaluated, copied and moved."""
    import copy

    from spikedistill.data import DataInfo, ImageSet, Loader
    from spikedistill.evaluation.accuracy import evaluate

    images, labels = digits
    info = DataInfo("digits", tuple("0123456789"), (1, 8, 8), (0.0,), (1.0,))
    part = ImageSet(images[:200], labels[:200])
    batches = Loader(part, info, batch_size=100, device=torch.device("cpu"), shuffle=False, seed=0)
    file = copy.deepcopy(through_a_file(trained, images[:1]))
    assert not list(file.parameters())
    assert evaluate(file, batches, 10).accuracy_per_timestep == evaluate(trained, batches, 10).accuracy_per_timestep
