"""Count the bytes of live tensors through one training step, on any device, to the byte.

A dispatch mode sees every tensor that an operation makes; a storage counts from its first sight until it is freed.
So the peak is that of live tensors: not of the allocator's blocks, and not of the process. What was seen is kept as a
history of storages made and freed, from which `timeline` tells the bytes of every kind at every operation.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Kind = Literal["parameters", "gradients", "optimizer", "activations", "inputs", "workspace"]
KINDS: tuple[Kind, ...] = ("parameters", "gradients", "optimizer", "activations", "inputs", "workspace")
"""activations: made in the forward pass (or its recomputation) and alive when the backward pass needs it; inputs: the
batch on the device; workspace: all else, such as an operation's temporaries and the gradients of activations."""

Phase = Literal["forward", "backward", "optimizer"]


@dataclass(frozen=True, kw_only=True)
class Made:
    """One storage: when it was made, and how large it is."""

    num_bytes: int
    phase: Phase
    is_recomputed: bool
    """Made in the backward pass by a checkpoint that runs its forward pass again."""
    comes_from_host: bool
    """A copy of a tensor on another device."""
    was_there: bool
    """Not made at all, but there already when the forward pass first looked at it."""
    module: str = ""
    """Name of the module that ran, where the count was told how to ask."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A storage that came or went."""

    operation: int
    """How many operations had run."""
    phase: Phase
    storage: int
    """Index into the history's `made`."""
    is_made: bool
    """False where it was freed."""


class LiveTensorCount(TorchDispatchMode):
    """Inside the `with`, `live_bytes` follows the storages that are alive and `peak_bytes` their greatest sum. After it
    nothing changes any more, so that the history can be read while storages go on being freed, in any thread.

    The phase of an operation needs no word from the loop: backward is what autograd runs, forward what was before it, and
    optimizer (clipping included) what comes after the last backward pass.

    Args:
        known: tensors that exist already, of no stated kind; counted from the start.
        device_type: tensors on other devices are not counted.
        kinds: tensors that exist already, by kind; counted from the start.
        gradients: the weights' gradients at the time of the call; asked when a backward pass is over.
        module_now: the name of the module that runs at the time of the call (`module_names.ModuleNames`).
    """

    def __init__(
        self,
        known: Iterable[Tensor] = (),
        *,
        device_type: str,
        kinds: Mapping[Kind, Iterable[Tensor]] | None = None,
        gradients: Callable[[], Iterable[Tensor]] | None = None,
        module_now: Callable[[], str] | None = None,
    ) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self.num_operations = 0
        self.is_over = False
        self.phase: Phase = "forward"
        self.made: list[Made] = []
        self.events: list[Event] = []
        self.kind_of: dict[int, Kind] = {}
        """Index into `made` -> its kind, where it was stated."""
        self._device_type = device_type
        self._gradients = gradients
        self._module_now = module_now
        self._live: dict[int, int] = {}
        for kind, tensors in (kinds or {}).items():
            for tensor in tensors:
                self._add(tensor)
                self.mark(kind, [tensor])
        for tensor in known:
            self._add(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:  # a fake tensor asks itself for its device, all the time
            return func(*args, **(kwargs or {}))
        self._follow_phase()
        result = func(*args, **(kwargs or {}))
        self.num_operations += 1
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf, made_from=args)
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self.phase == "backward":
            self._mark_gradients()
        self.is_over = True

    def mark(self, kind: Kind, tensors: Iterable[Tensor]) -> None:
        """State the kind of storages that are alive, for all their life; a kind that was stated earlier stays."""
        for tensor in tensors:
            index = self._live.get(tensor.untyped_storage()._cdata)
            if index is not None:
                self.kind_of.setdefault(index, kind)

    def _follow_phase(self) -> None:
        if torch._C._current_graph_task_id() != -1:
            self.phase = "backward"
        elif self.phase == "backward":
            self.phase = "optimizer"
            self._mark_gradients()

    def _mark_gradients(self) -> None:
        if self._gradients is not None:
            self.mark("gradients", self._gradients())

    def _was_there(self, tensor: Tensor, arguments: list[Tensor]) -> bool:
        """Whether an operation's result, of an unknown storage, is a view of an argument."""
        key = tensor.untyped_storage()._cdata
        return self.phase == "forward" and any(each.untyped_storage()._cdata == key for each in arguments)

    def _add(self, tensor: Tensor, *, made_from: tuple[Any, ...] = ()) -> None:
        if tensor.device.type != self._device_type:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        num_bytes = storage.nbytes()
        arguments = [leaf for leaf in tree_leaves(made_from) if isinstance(leaf, Tensor)]
        # A plain number that lies on another device does not count.
        is_copy = bool(arguments) and arguments[0].ndim > 0 and arguments[0].device.type != self._device_type
        self._live[key] = len(self.made)
        self._note(len(self.made), is_made=True)
        self.made.append(
            Made(
                num_bytes=num_bytes,
                phase=self.phase,
                is_recomputed=self.phase == "backward" and torch.is_grad_enabled(),
                comes_from_host=is_copy,
                was_there=self._was_there(tensor, arguments),
                module=self._module_now() if self._module_now is not None else "",
            )
        )
        self.live_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        if self.is_over:
            return
        index = self._live.pop(key)
        self._note(index, is_made=False)
        self.live_bytes -= self.made[index].num_bytes

    def _note(self, index: int, *, is_made: bool) -> None:
        self.events.append(
            Event(operation=self.num_operations, phase=self.phase, storage=index, is_made=is_made)
        )


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages behind the tensors."""
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())
