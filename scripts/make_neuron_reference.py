"""Writes what other libraries' neurons answer, as the fixtures of ``tests/spiking/test_peers.py``.

The peers' own requirements (torchvision, torchaudio) come tied to one build of torch, so they live in the environment
that ``make bench`` makes, and the tests read the answers from files:

    .venv-bench/bin/python scripts/make_neuron_reference.py

Each file holds ``inputs`` and ``upstream`` (the gradient that arrives at the spikes), ``[T, neurons]`` float32, and for
each case ``NAME/spikes`` (uint8), ``NAME/gradient`` (of the inputs) and, where the decay is learned,
``NAME/decay_logit_gradient``. The metadata's ``about`` (JSON) names versions and the settings of our neuron.
"""

import json
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path

import snntorch  # pyright: ignore[reportMissingImports]
import snntorch.surrogate  # pyright: ignore[reportMissingImports]
import torch
from safetensors.torch import save_file
from spikingjelly.activation_based import neuron, surrogate  # pyright: ignore[reportMissingImports]
from torch import Tensor

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "spiking" / "fixtures"
TIMESTEPS, NEURONS = 6, 40
BOOLEANS = (False, True)
RESETS = ("hard", "soft")

# our shape -> SpikingJelly's class, and our width as a function of its alpha
PEER_SURROGATES: dict[str, tuple[Callable, Callable[[float], float]]] = {
    "triangle": (surrogate.PiecewiseQuadratic, lambda alpha: 1.0 / alpha),
    "rectangle": (surrogate.Rect, lambda alpha: 0.5 / alpha),
    "sigmoid": (surrogate.Sigmoid, lambda alpha: 1.0 / alpha),
    "arctan": (surrogate.ATan, lambda alpha: 1.0 / alpha),
    "exponential": (surrogate.PiecewiseExp, lambda alpha: 1.0 / alpha),
}


@dataclass(frozen=True)
class Case:
    """One setting of the neuron; ``alpha`` is the peer's slope of the surrogate."""

    decay: float = 0.5
    threshold: float = 1.0
    reset: str = "hard"
    detach_reset: bool = False
    surrogate: str = "triangle"
    alpha: float = 1.0
    fires_on: str = ">="
    learn_decay: bool = False

    @property
    def name(self) -> str:
        """A readable name, such as ``lif-0.5-threshold-1.0-hard-triangle-1.0-detached``."""
        kind = "plif" if self.learn_decay else "if" if self.decay == 1.0 else "lif"
        parts = [kind, self.decay, "threshold", self.threshold, self.reset, self.surrogate, self.alpha]
        return "-".join(str(part) for part in parts) + ("-detached" if self.detach_reset else "")

    @property
    def settings(self) -> dict[str, object]:
        """The arguments that ask our ``LIF`` for the same neuron."""
        return {
            "decay": self.decay,
            "threshold": self.threshold,
            "reset": self.reset,
            "detach_reset": self.detach_reset,
            "surrogate": self.surrogate,
            "width": PEER_SURROGATES[self.surrogate][1](self.alpha),
            "fires_on": self.fires_on,
            "learn_decay": self.learn_decay,
        }


def spikingjelly_cases() -> list[Case]:
    """Every dynamics under the triangle, every surrogate at two slopes or more, and the learned decay."""
    dynamics = [
        Case(decay, threshold, reset, detach)
        for decay, threshold, reset, detach in product((0.5, 0.25, 1.0), (1.0, 0.5), RESETS, BOOLEANS)
    ]
    slopes = {
        "triangle": (2.0, 0.8),
        "rectangle": (1.0, 0.75),
        "sigmoid": (4.0, 3.0),
        "arctan": (2.0, 1.5),
        "exponential": (1.0, 2.5),
    }
    surrogates = [
        Case(reset=reset, detach_reset=detach, surrogate=shape, alpha=alpha)
        for shape, alphas in slopes.items()
        for alpha, reset, detach in product(alphas, RESETS, BOOLEANS)
    ]
    learned = [
        Case(decay, reset=reset, detach_reset=detach, learn_decay=True)
        for decay, reset, detach in product((0.5, 0.25, 0.8), RESETS, BOOLEANS)
    ]
    learned += [
        Case(surrogate=shape, alpha=alphas[0], learn_decay=True)
        for shape, alphas in slopes.items()
        if shape != "triangle"
    ]
    return dynamics + surrogates + learned


def snntorch_cases() -> list[Case]:
    """What both can be: fires on ``>``, detached hard reset (snnTorch's soft one comes a decay later than ours).

    The arctan is the surrogate that both have: what snnTorch calls ``triangular`` has a gradient of plus or minus one.
    """
    return [
        Case(decay, threshold, detach_reset=True, surrogate="arctan", alpha=alpha, fires_on=">")
        for decay, threshold, alpha in product((0.5, 0.25, 1.0), (1.0, 0.5), (2.0, 1.5))
    ]


def make_inputs(generator: torch.Generator) -> Tensor:
    """Random currents; the first columns put the membrane potential exactly at, just below and far from a threshold."""
    inputs = 0.5 + 0.8 * torch.randn(TIMESTEPS, NEURONS, generator=generator)
    column = 0
    for threshold in (1.0, 0.5):
        below = torch.nextafter(torch.tensor(threshold), torch.tensor(0.0)).item()
        starts = [
            [threshold, threshold],  # at the threshold from rest, twice
            [below],  # one ulp below it: silent
            [0.5 * threshold, 0.75 * threshold],  # at it in the second step where decay is 0.5
            [0.5 * threshold, 0.875 * threshold],  # ... where decay is 0.25
            [0.5 * threshold, 0.5 * threshold],  # ... where nothing leaks
            [4.0 * threshold, -threshold],  # far above it, and carried on by a soft reset
        ]
        for start in starts:
            inputs[: len(start), column] = torch.tensor(start)
            column += 1
    inputs[:, column] = 0.0
    return inputs


def spikingjelly_answer(case: Case, inputs: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    """Spikes, input gradient and, for a learned decay, the gradient of our ``decay_logit``."""
    shared = {
        "v_threshold": case.threshold,
        "v_reset": None if case.reset == "soft" else 0.0,
        "surrogate_function": PEER_SURROGATES[case.surrogate][0](alpha=case.alpha),
        "detach_reset": case.detach_reset,
        "step_mode": "m",
    }
    if case.learn_decay:
        node = neuron.ParametricLIFNode(init_tau=1.0 / (1.0 - case.decay), decay_input=False, **shared)
    elif case.decay == 1.0:
        node = neuron.IFNode(**shared)
    else:
        node = neuron.LIFNode(tau=1.0 / (1.0 - case.decay), decay_input=False, **shared)
    x = inputs.clone().requires_grad_()
    spikes = node(x)
    spikes.backward(upstream)
    assert x.grad is not None
    answer = {"spikes": spikes.detach().to(torch.uint8), "gradient": x.grad}
    if case.learn_decay:
        # its 1/tau is sigmoid(w) and decay = 1 - 1/tau = sigmoid(-w): our logit is -w
        assert math.isclose(torch.sigmoid(-node.w).item(), case.decay, rel_tol=1e-6)
        answer["decay_logit_gradient"] = -node.w.grad
    return answer


def snntorch_answer(case: Case, inputs: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    """Spikes and input gradient."""
    node = snntorch.Leaky(
        beta=case.decay,
        threshold=case.threshold,
        reset_mechanism="zero",
        spike_grad=snntorch.surrogate.atan(alpha=case.alpha),
    )
    x = inputs.clone().requires_grad_()
    membrane = node.reset_mem()
    steps = []
    for current in x:
        spike, membrane = node(current, membrane)
        steps.append(spike)
    spikes = torch.stack(steps)
    spikes.backward(upstream)
    assert x.grad is not None
    return {"spikes": spikes.detach().to(torch.uint8), "gradient": x.grad}


def write(peer: str, cases: list[Case], answer: Callable[[Case, Tensor, Tensor], dict[str, Tensor]]) -> None:
    """Runs every case and writes ``<peer>.safetensors``."""
    generator = torch.Generator().manual_seed(0)
    tensors = {"inputs": make_inputs(generator), "upstream": torch.randn(TIMESTEPS, NEURONS, generator=generator)}
    for case in cases:
        answers = answer(case, tensors["inputs"], tensors["upstream"])
        fired = answers["spikes"].float().mean().item()
        assert 0.1 < fired < 0.9, f"{case.name}: a firing rate of {fired} tells little"
        tensors |= {f"{case.name}/{key}": value.contiguous() for key, value in answers.items()}
    about = {
        "versions": {"python": platform.python_version(), "torch": torch.__version__, peer: version(peer)},
        "cases": {case.name: case.settings for case in cases},
    }
    path = FIXTURES / f"{peer}.safetensors"
    # one entry only: safetensors writes several in random order, and the file should come out the same each time
    save_file(tensors, path, {"about": json.dumps(about)})
    print(f"{path}: {len(cases)} cases, {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    FIXTURES.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    write("spikingjelly", spikingjelly_cases(), spikingjelly_answer)
    write("snntorch", snntorch_cases(), snntorch_answer)
