"""Which windows make which batch, at which fidelity, on which rank; and the loader that turns them into batches.

A plan holds no position: the batches of an epoch follow from (seed, epoch), so a run resumes at any batch of any epoch by
asking for it, and every rank knows its share without talking to the others.
"""

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lofi.batches import WindowBatch
from lofi.data.samples import SampleKey, WindowSample, collate
from lofi.data.video_info import DecodeError
from lofi.fidelity import Fidelity, FidelitySchedule


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Training: the windows shuffled each epoch and cut into global batches, each shared evenly by the ranks.

    What does not fill a last batch is left out of that epoch (another part each time).
    """

    num_windows: int
    batch_size: int
    """Windows per step, all ranks together."""
    schedule: FidelitySchedule
    seed: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        _check_rank(self.rank, self.world_size)
        if self.batch_size < 1:
            raise ValueError(f"the batch size is {self.batch_size}; it must be at least 1.")
        if self.batch_size % self.world_size:
            raise ValueError(
                f"the batch size {self.batch_size} cannot be shared evenly by {self.world_size} ranks; "
                f"take a multiple of {self.world_size}."
            )
        if self.num_windows < self.batch_size:
            raise ValueError(
                f"the batch size {self.batch_size} is larger than the {self.num_windows} training windows, so not one "
                "batch can be filled; take a smaller batch or more data."
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.num_windows // self.batch_size

    def batches(self, *, epoch: int, first_batch: int = 0) -> Iterator[list[SampleKey]]:
        """This rank's share of each batch of the epoch, from `first_batch` on."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
        order = np.random.default_rng(sequence).permutation(self.num_windows)
        share = self.batch_size // self.world_size
        for batch in range(first_batch, self.steps_per_epoch):
            fidelity = self.schedule.at(epoch=epoch, step=epoch * self.steps_per_epoch + batch)
            first = batch * self.batch_size + self.rank * share
            yield [
                SampleKey(index=int(index), fidelity=fidelity, epoch=epoch, training=True)
                for index in order[first : first + share]
            ]


@dataclass(frozen=True, kw_only=True)
class PredictionPlan:
    """Prediction and extraction: every window once, without repeats; each rank has whole videos.

    Videos are taken in order until they fill a batch; such a group is predicted by one rank, in the same batches on any
    number of ranks. A window's result therefore does not depend on how many there are, not even in the last bit. Ranks are
    as even as whole groups allow, and one may have none.
    """

    videos: Sequence[str]
    """The video of each window; the windows of a video lie together."""
    batch_size: int
    """Windows per step of one rank."""
    fidelity: Fidelity
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        _check_rank(self.rank, self.world_size)
        if self.batch_size < 1:
            raise ValueError(f"the batch size is {self.batch_size}; it must be at least 1.")

    @property
    def num_windows(self) -> int:
        """Of this rank."""
        return sum(len(group) for group in self._groups())

    def batches(self) -> Iterator[list[SampleKey]]:
        """This rank's batches, in order of the windows."""
        for group in self._groups():
            for first in range(0, len(group), self.batch_size):
                yield [
                    SampleKey(index=index, fidelity=self.fidelity)
                    for index in group[first : first + self.batch_size]
                ]

    def _groups(self) -> list[range]:
        """This rank's groups: the largest first, each to the rank that has the fewest windows so far."""
        groups = _groups_of_videos(self.videos, least=self.batch_size)
        loads = [0] * self.world_size
        mine = []
        for group in sorted(groups, key=len, reverse=True):
            rank = loads.index(min(loads))
            loads[rank] += len(group)
            if rank == self.rank:
                mine.append(group)
        return sorted(mine, key=lambda group: group.start)


def _groups_of_videos(videos: Sequence[str], *, least: int) -> list[range]:
    """Stretches of windows that hold whole videos, each of at least `least` windows; the last may be shorter."""
    ends = [
        index + 1
        for index in range(len(videos))
        if index + 1 == len(videos) or videos[index] != videos[index + 1]
    ]
    assert len(ends) == len(set(videos)), "the windows of a video must lie together"
    groups, first = [], 0
    for end in ends:
        if end - first >= least or end == len(videos):
            groups.append(range(first, end))
            first = end
    return groups


class Loader:
    """Makes batches in worker processes, some batches ahead, which stay from one epoch to the next."""

    def __init__(
        self,
        dataset: Dataset[WindowSample],
        *,
        workers: int,
        start_method: Literal["forkserver", "spawn"] = "forkserver",
    ) -> None:
        """No process is started yet.

        Args:
            dataset: sent to each worker once.
            workers: processes; 0 makes each batch in this process when it is asked for.
            start_method: never fork: a decoder does not survive it. The main script needs `if __name__ == "__main__":`.
        """
        context = None
        if workers > 0:
            context = multiprocessing.get_context(start_method)
            if start_method == "forkserver":
                context.set_forkserver_preload([__name__])  # torch is imported once, not by every worker
        self._sampler = _CurrentBatches()
        self._loader: DataLoader[Any] = DataLoader(
            _ErrorsAsValues(dataset),
            batch_sampler=self._sampler,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_collate_unless_error,
            multiprocessing_context=context,
            worker_init_fn=_end_with_the_main_process if workers > 0 else None,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else it draws from the global one, and a resumed run would draw once more
        )

    def batches(self, batches: Iterable[Sequence[SampleKey]]) -> Iterator[WindowBatch]:
        """Make these batches, in order; what is left of an earlier call is dropped.

        Args:
            batches: what `BatchPlan.batches` or `PredictionPlan.batches` gives.

        Raises:
            DecodeError: as the dataset raises it; from a worker too.
        """
        self._sampler.batches = batches
        for batch in self._loader:
            if isinstance(batch, DecodeError):
                raise batch
            yield batch


def build_loader(
    dataset: Dataset[WindowSample], batches: Iterable[Sequence[SampleKey]], *, workers: int
) -> Iterator[WindowBatch]:
    """The batches of one pass over a dataset; see `Loader`, which these are the batches of."""
    return Loader(dataset, workers=workers).batches(batches)


class _CurrentBatches:
    """What a loader takes its batches from, which changes from epoch to epoch."""

    def __init__(self) -> None:
        self.batches: Iterable[Sequence[SampleKey]] = ()

    def __iter__(self) -> Iterator[Sequence[SampleKey]]:
        return iter(self.batches)


def _end_with_the_main_process(worker: int) -> None:
    """In a worker: wait for the main process in a thread, and end when it does.

    torch's own watchdog waits for the parent, which is the fork server here; and a fork server lives as long as any of its
    workers. After a SIGKILL (the kernel's, for memory) both would stay for good.
    """
    main = multiprocessing.parent_process()
    assert main is not None

    def wait() -> None:
        main.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class _ErrorsAsValues(Dataset[Any]):
    """A decode error as the item, since a worker's exception loses its type and gains a traceback on the way."""

    def __init__(self, dataset: Dataset[WindowSample]) -> None:
        self.dataset = dataset

    def __getitem__(self, key: SampleKey) -> WindowSample | DecodeError:
        try:
            return self.dataset[key]
        except DecodeError as error:
            return error


def _collate_unless_error(samples: Sequence[WindowSample | DecodeError]) -> WindowBatch | DecodeError:
    errors = [sample for sample in samples if isinstance(sample, DecodeError)]
    return errors[0] if errors else collate([s for s in samples if isinstance(s, WindowSample)])


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"the rank is {rank}; it must be between 0 and {world_size - 1}.")
