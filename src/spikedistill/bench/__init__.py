"""The speed and memory benchmark: against installed peers, in interleaved runs, as ratios."""

from spikedistill.bench.command import bench

__all__ = ["bench"]
