"""What an operation costs: constants of energy models, each with its source, and the formulas that use them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from spikedistill.errors import UserError, unknown


@dataclass(frozen=True)
class Prices:
    """Energy of an operation in picojoules.

    Attributes:
        add: an addition, which is what an accumulate is.
        multiply: a multiplication.
        move: 64 bits from or to a memory, the cheapest and the dearest.
        source: where the numbers are printed.
    """

    add: float
    multiply: float
    move: tuple[float, float]
    source: str

    @property
    def mac(self) -> float:
        """A multiply-accumulate: a multiplication and an addition."""
        return self.add + self.multiply

    def computation(self, additions: float, multiplications: float) -> float:
        """Energy of additions and multiplications counted apart, in pJ (Joint A-SNN, table 5)."""
        return self.add * additions + self.multiply * multiplications

    def movement(self, bits: float) -> tuple[float, float]:
        """Energy of moving bits, in pJ: from the cheapest to the dearest memory (Joint A-SNN, table 6)."""
        return self.move[0] * bits / 64, self.move[1] * bits / 64


_HOROWITZ = "Horowitz 2014, 45 nm and 0.9 V"
_CACHE = (10.0, 100.0)

PRICES: dict[str, Prices] = {
    "45nm": Prices(0.9, 3.7, _CACHE, f"{_HOROWITZ}, 32-bit floating point (a multiply-accumulate is 4.6 pJ)"),
    "45nm-fp16": Prices(0.4, 1.1, _CACHE, f"{_HOROWITZ}, 16-bit floating point"),
    "45nm-int32": Prices(0.1, 3.1, _CACHE, f"{_HOROWITZ}, 32-bit integers"),
    "45nm-int8": Prices(0.03, 0.2, _CACHE, f"{_HOROWITZ}, 8-bit integers"),
    "joint-asnn": Prices(
        0.9,
        4.6,
        _CACHE,
        "Joint A-SNN, table 5: 0.9 pJ an addition and 4.6 pJ a multiplication beside it, so 5.5 pJ a "
        "multiply-accumulate",
    ),
}
DEFAULT_PRICES = "45nm"

ATTENTION = "attention"
FORMULAS: dict[str, str] = {
    "ANN, computation": "E = MACs * (multiply + add), whether an input is zero or not (Joint A-SNN section 5.4)",
    "SNN, computation": (
        "E = accumulates * add + multiply-accumulates * (multiply + add), accumulates = firing rate of the layer's "
        "input * MACs * T, measured layer by layer (Joint A-SNN section 5.4; Rathi and Roy 2020)"
    ),
    "SNN, inputs that are no spikes": (
        "the image and other analogue values cost a multiply-accumulate each; sums of spikes (SEW-ResNet) and averages "
        "of spikes (average pooling) cost a multiply-accumulate wherever they are not zero; spikes of one height are "
        "binary, whatever the height"
    ),
    "SNN, first layer": (
        "under direct coding its input is the same at every step, so it is computed once; Joint A-SNN table 5 counts "
        "it T times, which is what `first_layer_every_step` holds"
    ),
    ATTENTION: (
        "a product of two activations costs an accumulate where both factors are not zero if one of them is a spike, "
        "else a multiply-accumulate"
    ),
    "ANN, data movement": "bits = 2 * activations * 32: each is written once and read once (Joint A-SNN section 5.4)",
    "SNN, data movement": (
        "bits = T * 2 * neurons * 32 + spikes: each membrane potential is read and written at every step, a spike is "
        "one bit. This is the volume of Joint A-SNN's table 6 (12.506 MB = 2 * 6.234 MB + spikes at T = 2); "
        "`membrane_moved_once` holds the same with one move a step. The table's energies do not follow from its volumes"
    ),
    "FLOPs": (
        "MACs + 4 for each element that passes a BatchNorm + 1 for each that leaves an average pooling layer (KDSNN "
        "table 3)"
    ),
    "left out": (
        "BatchNorm (it folds into the weights), additions of shortcuts, pooling, and the neurons' own update (T * "
        "neurons additions and as many multiplications by the decay)"
    ),
}


def prices(name: str) -> Prices:
    """Prices by name, or changed: ``add=0.1,multiply=3.1,move=5:50`` starts from ``45nm``, in pJ.

    Raises:
        UserError: neither a name nor such a list.
    """
    if name in PRICES:
        return PRICES[name]
    if "=" not in name:
        raise unknown("energy constants", name, list(PRICES))
    changes: dict[str, float | tuple[float, float]] = {}
    for part in name.split(","):
        key, _, text = part.partition("=")
        numbers = _numbers(text)
        if key not in ("add", "multiply", "move") or not numbers or len(numbers) > (2 if key == "move" else 1):
            raise UserError(
                f"energy constants '{part}': give add=PJ, multiply=PJ or move=LOW:HIGH with numbers from 0 up, "
                f"separated by commas, or a name ({', '.join(sorted(PRICES))})"
            )
        changes[key] = (numbers[0], numbers[-1]) if key == "move" else numbers[0]
    return replace(PRICES[DEFAULT_PRICES], source=f"given: {name}; the rest {_HOROWITZ}", **changes)  # type: ignore


def _numbers(text: str) -> list[float]:
    """The numbers in ``low:high``; none where one is not a number from 0 up."""
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        return []
    return numbers if all(0 <= number < float("inf") for number in numbers) else []
