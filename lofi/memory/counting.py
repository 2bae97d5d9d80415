"""Count the bytes of live tensors through one training step, on any device, to the byte.

A dispatch mode sees every tensor that an operation makes; a storage counts from its first sight until it is freed.
So the peak is that of live tensors: not of the allocator's blocks, and not of the process.
"""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensorCount(TorchDispatchMode):
    """Inside the `with`, `live_bytes` follows the storages that are alive and `peak_bytes` their greatest sum.

    Args:
        known: tensors that exist already (weights, gradients, optimizer states); counted from the start.
        device_type: tensors on other devices are not counted.
    """

    def __init__(self, known: Iterable[Tensor], *, device_type: str) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._device_type = device_type
        self._sizes: dict[int, int] = {}
        for tensor in known:
            self._add(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        if tensor.device.type != self._device_type:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.live_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live_bytes -= self._sizes.pop(key)


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages behind the tensors."""
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())
