"""Our neurons beside SpikingJelly's and snnTorch's; ``scripts/make_neuron_reference.py`` wrote down their answers."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from spikedistill.spiking import IF, LIF, PLIF, kernels

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True)
class Reference:
    """What a peer answered to the inputs under our name for its settings."""

    name: str
    settings: dict[str, Any]
    inputs: Tensor
    upstream: Tensor
    spikes: Tensor
    gradient: Tensor
    decay_logit_gradient: Tensor | None

    @property
    def exact(self) -> bool:
        """Whether every product is by a power of two and no transcendental is met, so that the last bit must agree."""
        s = self.settings
        return (
            s["decay"] in (0.5, 1.0)
            and s["surrogate"] in ("triangle", "rectangle")
            and math.frexp(s["width"])[0] == 0.5
            and not s["learn_decay"]
        )

    def neuron(self) -> LIF:
        settings = dict(self.settings)
        if settings.pop("learn_decay"):
            return PLIF(**settings)
        return IF(**settings) if settings.pop("decay") == 1.0 else LIF(**self.settings)


def read(peer: str) -> list[Reference]:
    with safe_open(FIXTURES / f"{peer}.safetensors", "pt") as file:
        keys = set(file.keys())
        inputs, upstream = file.get_tensor("inputs"), file.get_tensor("upstream")
        return [
            Reference(
                name,
                settings,
                inputs,
                upstream,
                file.get_tensor(f"{name}/spikes").float(),
                file.get_tensor(f"{name}/gradient"),
                file.get_tensor(key) if (key := f"{name}/decay_logit_gradient") in keys else None,
            )
            for name, settings in json.loads(file.metadata()["about"])["cases"].items()
        ]


REFERENCES = {peer: read(peer) for peer in ("spikingjelly", "snntorch")}
EVERY = [pytest.param(r, id=f"{peer}-{r.name}") for peer, references in REFERENCES.items() for r in references]
DEFAULTS = [
    pytest.param(r, id=r.name)
    for r in REFERENCES["spikingjelly"]
    if r.settings["surrogate"] == "triangle"
    and r.settings["width"] == 1.0
    and r.settings["decay"] in (0.5, 1.0)
    and r.settings["threshold"] == 1.0
    and not r.settings["detach_reset"]
]


def compare(reference: Reference, neuron: LIF, spikes: Tensor, x: Tensor, exact: bool) -> None:
    torch.testing.assert_close(spikes.detach(), reference.spikes, atol=0, rtol=0)
    spikes.backward(reference.upstream)
    tolerance = 0.0 if exact else 1e-6
    torch.testing.assert_close(x.grad, reference.gradient, atol=tolerance, rtol=tolerance)
    if reference.decay_logit_gradient is not None:
        assert neuron.decay_logit is not None
        torch.testing.assert_close(neuron.decay_logit.grad, reference.decay_logit_gradient, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("reference", EVERY)
def test_the_plain_recurrence_answers_as_the_peer_does(reference: Reference) -> None:
    neuron, x = reference.neuron(), reference.inputs.clone().requires_grad_()
    compare(reference, neuron, kernels.plain_run(x, neuron.decay, neuron.dynamics), x, reference.exact)


@pytest.mark.parametrize("reference", DEFAULTS)
def test_the_module_answers_as_the_peer_does(reference: Reference) -> None:
    neuron, x = reference.neuron(), reference.inputs.clone().requires_grad_()
    compare(reference, neuron, neuron(x), x, exact=False)


def test_the_defaults_are_if_lif_and_plif_under_both_resets() -> None:
    kinds = {(type(r.neuron()), r.settings["reset"]) for p in DEFAULTS for r in p.values if isinstance(r, Reference)}
    assert kinds == {(kind, reset) for kind in (LIF, IF, PLIF) for reset in ("hard", "soft")}


@pytest.mark.parametrize("reference", EVERY)
def test_the_references_hold_both_sides_of_the_threshold(reference: Reference) -> None:
    threshold = torch.tensor(reference.settings["threshold"])
    first, fired = reference.inputs[0], reference.spikes[0] == 1
    at, below = first == threshold, first == torch.nextafter(threshold, torch.zeros(()))
    assert at.any() and below.any()
    assert fired[at].all() == (reference.settings["fires_on"] == ">=")
    assert not fired[below].any()
