"""What a file must say beside the graph, for whoever runs it without this package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikedistill.export.neurons import DT


@dataclass(frozen=True)
class About:
    """What a network file says about itself.

    Attributes:
        timesteps: T.
        encoding: ``direct`` (the image at every step), or what the sequences are that the file takes instead:
            ``poisson`` (spikes drawn from the image), ``sequence`` (the data's own).
        class_names: in the order of the logits; empty where they are not known.
        mean, std: the normalisation per channel, in units of [0, 1]; None where it is not known.
        weights: sha256 of the network's weights as safetensors.
        dt: seconds a timestep (NIR only).
    """

    timesteps: int
    encoding: str = "direct"
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    weights: str = ""
    dt: float = DT

    def metadata(self) -> dict[str, Any]:
        """As names and values that HDF5 and ONNX can hold."""
        from spikedistill import __version__

        known: dict[str, Any] = {
            "producer": f"spikedistill {__version__}",
            "timesteps": self.timesteps,
            "encoding": self.encoding,
            "readout": "mean over the timesteps of the output",
            "weights_sha256": self.weights,
        }
        if self.class_names:
            known["class_names"] = json.dumps(self.class_names, ensure_ascii=False)
        if self.mean is not None and self.std is not None:
            known["normalisation"] = "(image in [0, 1] - mean) / std, for each channel"
            known |= {"mean": np.array(self.mean), "std": np.array(self.std)}
        return known
