"""Windows in one block of memory that worker processes share, in place of a copy of all annotations in each of them."""

import pickle
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
import torch

from lofi.segments import Window


class PackedWindows(Sequence[Window]):
    """A list of windows that cannot be changed. Each is unpacked when it is asked for."""

    def __init__(self, windows: Iterable[Window]) -> None:
        packed = [pickle.dumps(window, protocol=pickle.HIGHEST_PROTOCOL) for window in windows]
        ends = np.cumsum([0, *(len(each) for each in packed)])
        # Tensors, since these move to shared memory on their way to another process.
        self._bytes = torch.frombuffer(bytearray(b"".join(packed) or b"\0"), dtype=torch.uint8)
        self._ends = torch.from_numpy(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> list[Window]: ...
    def __getitem__(self, index: int | slice) -> Window | list[Window]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} was asked for; there are {len(self)}.")
        place = index % len(self)
        begin, end = self._ends[place : place + 2].tolist()
        window: Window = pickle.loads(self._bytes[begin:end].numpy().tobytes())
        return window
