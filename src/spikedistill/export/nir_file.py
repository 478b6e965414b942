"""A spiking network as a NIR file (Neuromorphic Intermediate Representation, Pedersen et al. 2024): HDF5 by ``nir``."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from torch import Tensor, nn

from spikedistill.errors import UserError
from spikedistill.export.about import About
from spikedistill.export.operators import lower
from spikedistill.export.record import plain_copy, record
from spikedistill.export.sheet import Node, Sheet


def require_nir() -> None:
    """Refuses where the package ``nir`` is missing.

    Raises:
        UserError: it is.
    """
    try:
        import nir  # noqa: F401
    except ImportError:
        raise UserError("NIR files need the package nir: pip install 'spikedistill[chips]'") from None


def nir_bytes(network: nn.Module, images: Tensor, about: About) -> bytes:
    """The contents of a network's NIR file.

    Args:
        network: spiking, of ``create_model`` or ``spikify``; it stays as it is.
        images: at least one, as the network takes them, ``[B, ...]``.
        about: what the file says beside the graph.

    Raises:
        UserError: no spiking network, a step that NIR cannot express, or no ``nir``.
    """
    require_nir()
    import nir

    sheet = lower(record(plain_copy(network), images), about.dt)
    buffer = io.BytesIO()
    nir.write(buffer, to_graph(sheet, about))  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def to_graph(sheet: Sheet, about: About) -> Any:
    """The sheet as a ``nir.NIRGraph``, whose shapes NIR has checked."""
    import nir

    nodes = {name: _node(node) for name, node in sheet.nodes.items()}
    edges = [(source, name) for name, node in sheet.nodes.items() for source in node.sources]
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata=about.metadata() | _rules(sheet, about))


def _node(node: Node) -> Any:
    import nir

    fields = {key: _plain(value) for key, value in node.fields.items()}
    if node.kind in ("Input", "Output"):
        key = "input" if node.kind == "Input" else "output"
        fields = {f"{key}_type": {key: np.array(node.fields["shape"])}}
    if node.kind == "Flatten":
        fields["input_type"] = {"input": np.array(node.fields["input_type"])}
    return getattr(nir, node.kind)(**fields, metadata=node.metadata)


def _plain(value: Any) -> Any:
    """Weights in single precision, as chips and readers take them."""
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def _rules(sheet: Sheet, about: About) -> dict[str, Any]:
    """How to run the graph, and what of the network NIR's own words do not say."""
    layers = [node for node in sheet.nodes.values() if "fires_on" in node.metadata]
    soft = any(node.metadata.get("reset") == "subtract" for node in layers)
    return {
        "dt": about.dt,
        "integration": "forward Euler, one step of dt a timestep; v is zero before the first one",
        "fires_on": "v > v_threshold",
        "trained_with": " and ".join(sorted({node.metadata["fires_on"] for node in layers})),
        "reset": "subtract, see the neurons' own metadata" if soft else "to v_reset",
    }
