"""No augmentation makes the processor wait for the device: seen on the meta device, where nothing is computed."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spikedistill.data.augmentations import AUGMENTATIONS
from spikedistill.data.pipeline import Pipeline
from spikedistill.data.sets import DataInfo

INFO = DataInfo("x", tuple("abc"), (3, 32, 32), (0.49, 0.48, 0.44), (0.2, 0.2, 0.2))


class Copies(TorchDispatchMode):
    """Counts copies from here to there."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting, self.sent = [], 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        there = torch.device(kwargs.get("device") or "cpu").type == "meta"
        if func is torch.ops.aten._to_copy.default and there and args[0].device.type == "cpu":
            self.sent += 1
            if not kwargs.get("non_blocking"):
                self.waiting.append(args[0].shape)
        return func(*args, **kwargs)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_no_copy_of_what_was_drawn_is_waited_for(name, monkeypatch):
    pipeline = Pipeline((name,), INFO, torch.device("meta"))
    drawn = pipeline.draw(128, torch.Generator().manual_seed(0))
    images = torch.empty(128, 3, 32, 32, dtype=torch.uint8, device="meta")
    made = torch.tensor

    def tensor(*values: Any, **settings: Any) -> torch.Tensor:  # its copy goes past every mode
        assert torch.device(settings.get("device") or "cpu").type == "cpu"
        return made(*values, **settings)

    monkeypatch.setattr(torch, "tensor", tensor)
    with Copies() as copies:
        pipeline(images, drawn)
    assert copies.sent and not copies.waiting
