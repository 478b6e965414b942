"""Spiking neurons: one family, as a pure step (``kernels.plain_step``) and a thin module around it.

    h[t] = decay * v[t-1] + x[t]                    charge (membrane potential before the spike)
    s[t] = 1 if h[t] crosses the threshold else 0    fire
    v[t] = h[t] * (1 - s[t])                         hard reset to zero
    v[t] = h[t] - threshold * s[t]                   soft reset

IF is decay = 1 (KDSNN); LIF with decay 0.5, threshold 1, firing on >=, hard reset and the triangle surrogate is SAKD's
equations 1 to 4; ``fires_on=">"`` is IDSNN's equation 3 and Joint A-SNN's equation 2. None of the papers says whether
the reset carries gradient: ``detach_reset`` is an option, False by default (the reset is part of the recurrence).
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from spikedistill.errors import UserError, unknown
from spikedistill.spiking import kernels
from spikedistill.spiking.surrogate import Surrogate, is_number, make_surrogate

RESETS = ("hard", "soft")
COMPARISONS = (">=", ">")


class LIF(nn.Module):
    """Leaky integrate-and-fire neuron over a whole sequence: ``[T, B, ...]`` currents to spikes of the same shape.

    Every call starts from a membrane potential of zero and leaves nothing behind. Given as ``neuron=`` to a network,
    it is the template that each layer copies.

    Args:
        decay: share of the membrane potential kept from one step to the next, in (0, 1].
        threshold: firing threshold, positive.
        reset: ``hard`` (to zero) or ``soft`` (minus the threshold).
        detach_reset: whether the spike in the reset is cut out of the backward pass.
        surrogate: ``triangle``, ``rectangle``, ``sigmoid``, ``arctan`` or ``exponential``.
        width: the surrogate's width; None takes the shape's default.
        fires_on: ``>=`` or ``>``.
        learn_decay: decay becomes a parameter, one per layer (PLIF, Fang et al. 2021), kept in (0, 1) by a sigmoid.

    Raises:
        UserError: a setting outside its range, or an unknown name.
    """

    def __init__(
        self,
        decay: float = 0.5,
        threshold: float = 1.0,
        *,
        reset: str = "hard",
        detach_reset: bool = False,
        surrogate: str = "triangle",
        width: float | None = None,
        fires_on: str = ">=",
        learn_decay: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("decay", decay), ("threshold", threshold)):
            if not is_number(value):
                raise UserError(f"neuron {name} must be a finite number, not {value!r}")
        if not 0.0 < decay <= 1.0:
            raise UserError(f"neuron decay must lie in (0, 1], not {decay}")
        if not threshold > 0.0:
            raise UserError(f"neuron threshold must be positive, not {threshold}")
        if reset not in RESETS:
            raise unknown("neuron reset", reset, RESETS)
        if fires_on not in COMPARISONS:
            raise unknown("neuron comparison", fires_on, COMPARISONS)
        if learn_decay and decay == 1.0:
            raise UserError("neuron decay must be below 1 where it is learned (a sigmoid never reaches 1)")
        self.fixed_decay = float(decay)
        self.dynamics = kernels.Dynamics(
            float(threshold), reset == "soft", fires_on == ">", detach_reset, make_surrogate(surrogate, width)
        )
        if learn_decay:
            self.decay_logit = nn.Parameter(torch.tensor(math.log(decay / (1.0 - decay))))
        else:
            self.register_parameter("decay_logit", None)

    @property
    def decay(self) -> float | Tensor:
        """The decay: a float, or a 0-d tensor in (0, 1) where it is learned."""
        return self.fixed_decay if self.decay_logit is None else torch.sigmoid(self.decay_logit)

    @property
    def threshold(self) -> float:
        """The firing threshold."""
        return self.dynamics.threshold

    @property
    def surrogate(self) -> Surrogate:
        """The surrogate that stands in for ds/du."""
        return self.dynamics.surrogate

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, B, ...]`` to spikes ``[T, B, ...]`` in the input's dtype."""
        return kernels.run(x, self.decay, self.dynamics)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, metadata: Any, strict: bool, *lists: Any) -> None:
        # An ANN's weights fit; the decay that is learned is the neuron's own.
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)
        missing = lists[0]
        missing[:] = [key for key in missing if key != f"{prefix}decay_logit"]

    def copy(self) -> "LIF":
        """A neuron with the same settings and parameters of its own."""
        return copy.deepcopy(self)

    def settings(self) -> dict[str, object]:
        """The arguments of ``LIF`` that make this neuron again (a learned decay as it is now, held inside (0, 1))."""
        learned = self.decay_logit
        decay = self.fixed_decay if learned is None else float(torch.sigmoid(learned.detach()).clamp(1e-6, 1.0 - 1e-6))
        return {
            "decay": decay,
            "threshold": self.dynamics.threshold,
            "reset": "soft" if self.dynamics.soft_reset else "hard",
            "detach_reset": self.dynamics.detach_reset,
            "surrogate": self.dynamics.surrogate.name,
            "width": self.dynamics.surrogate.width,
            "fires_on": ">" if self.dynamics.strict else ">=",
            "learn_decay": self.decay_logit is not None,
        }

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.settings().items())


class IF(LIF):
    """Integrate-and-fire: a LIF that forgets nothing (decay 1), KDSNN's neuron. Other settings as in ``LIF``."""

    def __init__(self, threshold: float = 1.0, **settings: Any) -> None:
        super().__init__(1.0, threshold, **settings)


class PLIF(LIF):
    """LIF with a learnable decay per layer (Fang et al. 2021). Other settings as in ``LIF``."""

    def __init__(self, decay: float = 0.5, threshold: float = 1.0, **settings: Any) -> None:
        super().__init__(decay, threshold, learn_decay=True, **settings)
