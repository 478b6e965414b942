"""How a command ends: 0 done, 1 failed, 2 refused input; one sentence on stderr for whatever a user can act on."""

from __future__ import annotations

import errno
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from spikedistill.errors import Stopped, TrainingFailed, UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class _Interrupted(BaseException):
    """A signal while no training loop was there to take it; typer would leave without a word."""


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise _Interrupted(signal.Signals(number).name)


def _warning(message: Warning | str, category: type[Warning], filename: str, *where: object) -> str:
    """Our own warnings as a sentence; others' with the name of their kind."""
    place = "" if "spikedistill" in filename else f"{category.__name__}: "
    return f"spikedistill: {place}{message}\n"


def _leave(code: int, sentence: str) -> NoReturn:
    print(f"spikedistill: {sentence}", file=sys.stderr)
    sys.exit(code)


def _speaks(error: TrainingFailed) -> bool:
    """Of several processes that stop together one says so."""
    from spikedistill.engine.processes import leads

    return not isinstance(error, Stopped) or leads()


@contextmanager
def exiting() -> Iterator[None]:
    """Turns what is raised inside into an exit code and a sentence; errors of ours keep their traceback.

    Interrupts and requests to terminate (SIGINT, SIGTERM) count as failures, unless the caller ignores them.
    """
    warnings.formatwarning = _warning
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    except UserError as error:
        _leave(2, str(error))
    except TrainingFailed as error:
        if _speaks(error):
            _leave(1, str(error))
        sys.exit(1)
    except _Interrupted as error:
        _leave(1, f"interrupted ({error}); a run that had begun goes on with --resume")
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:
            raise
        where = "the output" if error.filename is None else f"'{error.filename}'"
        _leave(1, f"{where}: {error.strerror}")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in NO_MEMORY):
            raise
        what = str(error).splitlines()[0] if str(error) else "MemoryError"
        _leave(
            1,
            f"memory ran out ({what}); a smaller batch_size, width or timesteps needs less, and so does memory=lean",
        )
