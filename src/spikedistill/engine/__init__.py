"""The training loop, on Lightning Fabric."""

from spikedistill.engine.loop import Batches, Trainer, TrainSettings
from spikedistill.engine.optimisation import OptimizerSettings, ScheduleSettings

__all__ = ["Batches", "OptimizerSettings", "ScheduleSettings", "TrainSettings", "Trainer"]
