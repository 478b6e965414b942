"""Which use of a module or function in training mode is which in evaluation mode: they share a neuron."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import torch
from torch import fx

_HERE = Path(__file__).parent
_NOT_THE_USERS = (
    str(Path(torch.__file__).parent),
    *(str(_HERE / name) for name in ("tracing.py", "known.py", "patched.py", "uses.py")),
)
_START = ("trace", str(_HERE / "tracing.py"))


@dataclass(frozen=True)
class Use:
    """One use of a module, or of a function in a module's code: which, and the how manieth there.

    Attributes:
        owner: path of the module, or of the one in whose code the function is called.
        index: from 0; evaluation's first.
        function: whether it is a function.
    """

    owner: str
    index: int
    function: bool


@dataclass(frozen=True)
class Call:
    """What a step of a graph does, to find it again in the other mode's graph.

    Attributes:
        node: the step.
        owner: as of ``Use``.
        function: as of ``Use``.
        name: what is called.
    """

    node: fx.Node
    owner: str
    function: bool
    name: str

    def key(self, exactness: int) -> object:
        """What two calls have in common that are the same: where they are written, or only what they do."""
        lines = self.node.meta.get("lines", ())
        where = (lines, lines[-1:], ())[exactness]
        return where, self.name, self.node.meta.get("shape")


def lines() -> tuple[int, ...]:
    """The places in the user's code that led here, the innermost last; they mean something in this process alone."""
    found: list[int] = []
    frame = sys._getframe(1)
    while frame is not None and (frame.f_code.co_name, frame.f_code.co_filename) != _START:
        if not frame.f_code.co_filename.startswith(_NOT_THE_USERS):
            found.append(hash((frame.f_code, frame.f_lasti)))
        frame = frame.f_back
    return tuple(reversed(found))


def numbered(graphs: Sequence[Sequence[Call]]) -> dict[fx.Node, Use]:
    """The use that each call is.

    Args:
        graphs: the calls of each graph, in order. What only a later one has comes behind what the first one has.
    """
    uses: dict[fx.Node, Use] = {}
    known: dict[str, list[Call]] = defaultdict(list)
    count: Counter[str] = Counter()
    for graph in graphs:
        owners: dict[str, list[Call]] = defaultdict(list)
        for call in graph:
            owners[call.owner].append(call)
        for owner, calls in owners.items():
            same = dict(_pairs(calls, known[owner], 0))
            for call in calls:
                if call in same:
                    uses[call.node] = uses[same[call].node]
                else:
                    uses[call.node] = Use(owner, count[owner], call.function)
                    count[owner] += 1
            known[owner] = known[owner] or calls
    return uses


def _pairs(calls: Sequence[Call], known: Sequence[Call], exactness: int) -> list[tuple[Call, Call]]:
    """The calls of two graphs that are the same; first by where they are written, then by what they do."""
    keys = [[call.key(exactness) for call in part] for part in (calls, known)]
    pairs: list[tuple[Call, Call]] = []
    for tag, i, j, k, m in SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if tag == "equal":
            pairs += zip(calls[i:j], known[k:m], strict=True)
        elif tag == "replace" and exactness < 2:
            pairs += _pairs(calls[i:j], known[k:m], exactness + 1)
    return pairs
