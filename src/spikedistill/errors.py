"""The exceptions that the command line turns into a sentence: refused input, and a run that failed."""

from collections.abc import Sequence


def printable(text: str) -> str:
    """A text on one line without control characters: names in files from strangers must not steer a terminal."""
    return "".join(_shown(character) for character in " ".join(text.split("\n")))


def _shown(character: str) -> str:
    # C0 and C1 controls, and those that turn the direction of writing.
    control = character < " " or "\x7f" <= character <= "\x9f"
    turns = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    return "?" if control or turns else character


class UserError(Exception):
    """A mistake in what was asked for: a recipe key, a path, a name, a shape.

    The message is one sentence that names what was given, where, and what would do. The command line prints it
    and leaves with exit code 2; no traceback is shown.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class TrainingFailed(Exception):
    """A run that was asked for rightly and could not be finished; the command line leaves with exit code 1."""


class Stopped(TrainingFailed):
    """A run that was asked to stop, by a signal or a deadline, and left a checkpoint from which it goes on."""


class WriteFailed(TrainingFailed):
    """A file of a run could not be written, such as on a full disk; what stood there before still stands."""


SHOWN = 60
"""Accepted names that a message spells out."""


def nearest(given: str, accepted: Sequence[str]) -> str:
    """Returns a hint such as ``; did you mean 'sakd'?`` when one accepted name is close to the given one, or ''."""
    import difflib

    match = difflib.get_close_matches(given, accepted, n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def first_line(error: BaseException) -> str:
    """What an exception says, as a part of a sentence: the first line of its message, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:300] if lines else type(error).__name__


def shortened(names: Sequence[str], shown: int = 4) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def unknown(kind: str, given: str, accepted: Sequence[str]) -> UserError:
    """Builds the refusal of an unknown name: what was given, the nearest accepted one, and all accepted ones.

    Of more than a screen can show, the nearest few.
    """
    import difflib

    if len(accepted) > SHOWN:
        close = ", ".join(difflib.get_close_matches(given, accepted, n=8, cutoff=0.3)) or ", ".join(
            sorted(accepted)[:8]
        )
        shown = "" if " " in kind else f"; 'spikedistill list {kind}s' shows them"
        among = f"{len(accepted)} are accepted, among them {close}{shown}"
        return UserError(f"unknown {kind} '{given}'{nearest(given, accepted)} ({among})")
    return UserError(f"unknown {kind} '{given}'{nearest(given, accepted)} (accepted: {', '.join(sorted(accepted))})")
