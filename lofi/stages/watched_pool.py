"""Call a function on many items in processes that may die or hang: such an item is reported, and the others go on.

A decoder is foreign code over foreign files: it may end its process or never return, and no exception tells. So each process
works on one item at a time, and the parent watches its pipe and the clock. `multiprocessing.Pool` and the executors give up
or wait for ever in these cases.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

START_SEC = 120.0
"""A process that has not started after so long never will."""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """An item whose process died, hung, or raised."""

    reason: str


@dataclass(kw_only=True)
class _Worker:
    process: Any
    connection: Connection
    is_ready: bool = False
    item: int | None = None
    deadline: float


def watched_map(
    function: Callable[[Any], Any], items: Sequence[Any], *, workers: int, timeout_sec: float
) -> Iterator[tuple[int, Any]]:
    """Yield (index of an item, its result or a `Lost`), in the order in which they get done.

    Args:
        function: importable by name; takes an item. Both items and results go through pipes.
        items: worked on in order.
        workers: processes at a time.
        timeout_sec: an item that takes longer is ended.

    Raises:
        ValueError: a number is not positive.
        RuntimeError: a process ended before it was ready to work, which no item can cause.
    """
    if workers < 1 or not timeout_sec > 0:
        raise ValueError(f"workers is {workers} and timeout_sec {timeout_sec}; both must be positive.")
    waiting = iter(range(len(items)))
    pool: list[_Worker] = []
    num_left = len(items)
    try:
        while num_left:
            while len(pool) < min(workers, num_left):
                pool.append(_start(function))
            busy_until = min(worker.deadline for worker in pool)
            wait([worker.connection for worker in pool], timeout=max(0.0, busy_until - time.monotonic()))
            for worker in list(pool):
                outcome = _outcome(worker, timeout_sec)
                if outcome is not None:
                    if isinstance(outcome, Lost):
                        pool.remove(worker)
                        _end(worker)
                    assert worker.item is not None
                    yield worker.item, outcome.value if isinstance(outcome, _Done) else outcome
                    worker.item = None
                    num_left -= 1
                if worker in pool and worker.is_ready and worker.item is None:
                    _give(worker, next(waiting, None), items, timeout_sec)
    finally:
        for worker in pool:
            _end(worker)


@dataclass(frozen=True, kw_only=True)
class _Done:
    value: Any


def _start(function: Callable[[Any], Any]) -> _Worker:
    # spawn: a fork would take over whatever the parent has open
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process=process, connection=ours, deadline=time.monotonic() + START_SEC)


def _give(worker: _Worker, item: int | None, items: Sequence[Any], timeout_sec: float) -> None:
    worker.item = item
    worker.deadline = time.monotonic() + (timeout_sec if item is not None else START_SEC)
    if item is not None:
        worker.connection.send(items[item])


def _outcome(worker: _Worker, timeout_sec: float) -> "_Done | Lost | None":
    """What a worker has to tell, if anything. It becomes ready by its first word."""
    if worker.connection.poll():
        try:
            kind, value = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            return _death(worker)
        if kind == "ready":
            worker.is_ready = True
            return None
        return _Done(value=value) if kind == "done" else Lost(reason=value)
    if time.monotonic() < worker.deadline:
        return None
    if not worker.is_ready:
        raise RuntimeError(f"a process did not start within {START_SEC:g} s.")
    if worker.item is None:
        worker.deadline = time.monotonic() + START_SEC
        return None
    return Lost(reason=f"no answer within {timeout_sec:g} s.")


def _death(worker: _Worker) -> Lost:
    worker.process.join(timeout=10)
    code = worker.process.exitcode
    if not worker.is_ready or worker.item is None:
        raise RuntimeError(f"a process ended with exit code {code} before it was given any work.")
    how = (
        f"by signal {signal.Signals(-code).name}"
        if code is not None and code < 0
        else f"with exit code {code}"
    )
    return Lost(reason=f"the process that read it was ended {how}.")


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join(timeout=10)
    worker.connection.close()


def _work(function: Callable[[Any], Any], connection: Connection) -> None:
    """One process: an item in, a result out, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection.send(("ready", None))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)  # decoders print what they think of a file
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("done", function(item)))
        except Exception as error:
            connection.send(("lost", f"{type(error).__name__}: {error}".splitlines()[0]))
