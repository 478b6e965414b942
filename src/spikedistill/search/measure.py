"""How good a subnet of a trained supernet is, without training it any further."""

from __future__ import annotations

import time
from typing import NamedTuple

from spikedistill.engine.loop import Batches
from spikedistill.evaluation.accuracy import evaluate
from spikedistill.models.elastic import ElasticResNet
from spikedistill.models.resnet import ResNet
from spikedistill.models.subnets import Subnet
from spikedistill.search.calibration import recalibrate

CALIBRATION_BATCHES = 16


class Measured(NamedTuple):
    """A subnet's accuracy in percent, its number of parameters, and how long it took to find out."""

    accuracy: float
    parameters: int
    seconds: float


class Meter:
    """Extracts subnets, fits their BatchNorm statistics, and evaluates them.

    Args:
        supernet: the trained network, on the device of the batches.
        calibration: training images, not augmented.
        validation: the held-out part; test images have no place here.
        num_classes: K.
        batches: how many of ``calibration`` a subnet is fitted on.
    """

    def __init__(
        self,
        supernet: ElasticResNet,
        calibration: Batches,
        validation: Batches,
        num_classes: int,
        batches: int = CALIBRATION_BATCHES,
    ) -> None:
        self._supernet, self._calibration, self._validation = supernet, calibration, validation
        self._num_classes, self._batches = num_classes, batches

    def fitted(self, subnet: Subnet) -> ResNet:
        """The subnet as a plain network with BatchNorm statistics of its own, in evaluation mode."""
        network = self._supernet.extract(subnet).eval()
        recalibrate(network, self._calibration, self._batches)
        return network

    def __call__(self, subnet: Subnet) -> Measured:
        """Measures a subnet on the validation part."""
        started = time.perf_counter()
        network = self.fitted(subnet)
        accuracy = evaluate(network, self._validation, self._num_classes).accuracy
        parameters = sum(parameter.numel() for parameter in network.parameters())
        return Measured(accuracy, parameters, time.perf_counter() - started)
