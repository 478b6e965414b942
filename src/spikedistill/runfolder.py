"""The run folder: what a run leaves on disk, and reading a trained network back from it."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikedistill import documents
from spikedistill.engine.checkpoint import write_durably
from spikedistill.errors import UserError, first_line

STUDENT = "student.safetensors"
OWN_TEACHER = "teacher"
"""The run, in a run's folder, of the teacher that was trained for it."""


def write_json(path: Path, content: Any) -> None:
    """Writes JSON durably; a number that is not finite becomes null, which every reader of JSON knows."""
    write_durably(path, (json.dumps(_finite(content), indent=2, allow_nan=False) + "\n").encode())


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def save_network(network: nn.Module, path: Path) -> None:
    """Writes a network's state as safetensors."""
    write_durably(path, state_bytes(network))


def check_storable(network: nn.Module, role: str) -> None:
    """Refuses a network whose state no weights file holds, before it is trained.

    Raises:
        UserError: there is more in it than tensors.
    """
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"the {role}'s state dict holds '{name}', a {type(value).__name__}, and a weights file holds tensors "
                "only; keep that outside of the network (get_extra_state)"
            )


def state_bytes(network: nn.Module) -> bytes:
    """A network's state as the contents of a safetensors file."""
    from safetensors.torch import save

    return save({key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()})


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads a state dict: safetensors, or a torch file with ``weights_only=True``. No code of the file is ever run.

    Raises:
        UserError: no such file, or not such a file.
    """
    if not path.is_file():
        raise UserError(f"no weights file at '{path}'")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            # The reader hands them over in another order each time; what is said of a file is the same each time.
            return dict(sorted(load(path.read_bytes()).items()))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many kinds; whichever it is, the file is the user's
        reason = first_line(error)
        raise UserError(f"'{path}' cannot be read as a state dict: {reason}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"'{path}' does not hold a state dict (names to tensors)")
    return state


def load_state(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Loads a state dict strictly, but for BatchNorms' counters and what calibration has added to a spikified network.

    Raises:
        UserError: names the first missing, unexpected or differently shaped tensor.
    """
    check_state(network, state, source)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # a tensor without numbers (sparse, quantised, on no device)
        raise UserError(f"{source} cannot be loaded: {str(error).splitlines()[-1].strip()}") from None


def check_state(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Refuses a state dict that is not the network's, as ``load_state`` does."""
    own = network.state_dict()
    for key, value in own.items():
        if key not in state:
            # Files older than torch 0.4, such as torchvision's of VGGs, do not count batches; torch takes them as well.
            if key.rpartition(".")[2] == "num_batches_tracked":
                continue
            raise UserError(f"{source} has no tensor '{key}', which {type(network).__name__} needs")
        if state[key].shape != value.shape:
            raise UserError(f"{source}: '{key}' is {list(state[key].shape)}, the network's is {list(value.shape)}")
    added = {
        f"{path}.{name}".removeprefix(".")
        for path, module in network.named_modules()
        for name in getattr(module, "OPTIONAL_STATE", ())
    }
    extra = [key for key in state if key not in own and key not in added]
    if extra:
        raise UserError(f"{source} has a tensor '{extra[0]}' that {type(network).__name__} does not know")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: missing, or not a JSON object.
    """
    if not path.exists():
        raise UserError(f"'{path.parent}' is not a finished run: it has no {path.name}")
    content = documents.read_json(path, f"'{path}'")
    if not isinstance(content, dict):
        raise UserError(f"'{path}' does not hold a JSON object")
    return content


NUMBER, TEXT = (int, float), (str,)
SUMMARY_FIELDS: dict[str, tuple[type, ...]] = {
    "student_accuracy": NUMBER,
    "teacher_accuracy": (*NUMBER, type(None)),
    "timesteps": (int, type(None)),
    "seed": (int,),
    "wall_seconds": NUMBER,
    **dict.fromkeys(("name", "method", "device", "torch", "commit"), TEXT),
}
"""What a finished run's summary is relied upon to hold, and as what."""


def read_summary(path: Path) -> dict[str, Any]:
    """A finished run's ``summary.json``.

    Raises:
        UserError: missing, damaged, or not what a run writes.
    """
    summary = read_json(path)
    for key, kinds in SUMMARY_FIELDS.items():
        if key not in summary or not isinstance(summary[key], kinds) or isinstance(summary[key], bool):
            raise UserError(
                f"'{path}' says {repr(summary.get(key))[:60]} for '{key}', which no finished run does; remove the file "
                "and go on with --resume to have it written again"
            )
    return summary


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a path below a folder lies, by a link, outside of it."""
    # Not Path.resolve, which does not take links that go round in circles.
    place, whole = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath((place, whole)) != whole


def commit() -> str:
    """The commit of the code in use (with ``+`` where its files differ from it), or the version outside git."""
    folder = Path(__file__).resolve().parent
    git = ["git", "-C", str(folder)]

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        return subprocess.run([*git, *words], capture_output=True, text=True, timeout=10, env=environment)

    try:
        described = said("describe", "--always", "--abbrev=12", "--exclude=*")
        tracked = said("ls-files", "--error-unmatch", Path(__file__).name)
        # Of the package alone: results that are written beside it make no other code.
        changed = said("diff", "--quiet", "HEAD", "--", ".")
    except (OSError, subprocess.TimeoutExpired):
        described = None
    if described is None or described.returncode or tracked.returncode:
        from spikedistill import __version__

        return f"v{__version__}"
    return described.stdout.strip() + ("+" if changed.returncode else "")
