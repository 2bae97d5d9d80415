"""What every script in launch/ shares: a user's mistake ends in one line and an exit code, not in a traceback.

Exit codes: 0 done; 1 stopped in mid-work (a video that cannot be decoded, a loss that is not finite); 2 refused before any
work (a recipe, a path, an option); 143 stopped by request after saving a checkpoint.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

HOLD_SEC = 5.0
"""How long another rank than 0 holds back a refusal."""


def run_command(command: Callable[[], int | None], *, file: str | None = None) -> int:
    """Run a command's body and turn what a user can cause into one line on stderr; returns the exit code.

    Args:
        command: the body; its result is the exit code, None is 0.
        file: the recipe that the command was given; messages that do not name it begin with it.
    """
    try:
        return command() or 0
    except OSError as error:
        return _refuse(f"error: {error}")
    except ValueError as error:
        if not _is_ours(error):
            raise
        where = f"{file}: " if file is not None and file not in str(error) else ""
        return _refuse(f"error: {where}{error}")
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except Exception as error:
        from lofi.data.decode import DecodeError  # here: they bring torch, and most commands never need them
        from lofi.engine.loop import Interrupted, NonFiniteError

        if isinstance(error, Interrupted):
            return _say(str(error), 143)
        if isinstance(error, DecodeError | NonFiniteError):
            return _say(f"stopped: {error}", 1)
        raise


def _is_ours(error: ValueError) -> bool:
    """Whether the error was raised by lofi or sola for a user to read; one from a library is a bug and keeps its
    traceback."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    root = Path(__file__).parents[1]
    return any(root / package in raised_in.parents for package in ("lofi", "sola"))


def _refuse(message: str) -> int:
    """Nearly every refusal is one of all ranks, and should be read once. Another rank than 0 therefore waits a moment before
    it speaks: where rank 0 refuses as well, the launcher has ended this process by then."""
    rank = int(os.environ.get("RANK", "0"))
    if rank == 0:
        return _say(message, 2)
    time.sleep(HOLD_SEC)
    return _say(f"rank {rank}: {message}", 2)


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr, flush=True)
    return code
