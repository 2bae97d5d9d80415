"""Which module runs at this moment: in the forward pass, in the backward pass, and while a checkpoint recomputes."""

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

OUTSIDE = "(loss)"
"""What runs in no named module: the head's targets and losses."""


class ModuleNames:
    """Inside the `with`, `now()` is the dotted name of the innermost module that runs.

    In the backward pass it is the module whose output's gradient arrived last; a checkpoint's recomputation counts as a
    forward pass of its modules.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._stack: list[str] = []
        self._in_backward = OUTSIDE
        self._handles: list[Any] = []

    def __enter__(self) -> "ModuleNames":
        for name, module in self._module.named_modules():
            if name:
                self._handles.append(module.register_forward_pre_hook(self._entering(name)))
                # always_call: a checkpoint ends its recomputation with an exception once it has what it needs.
                self._handles.append(module.register_forward_hook(self._leaving(name), always_call=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def now(self) -> str:
        """The module's dotted name, or `OUTSIDE`."""
        if self._stack:
            return self._stack[-1]
        return self._in_backward if torch._C._current_graph_task_id() != -1 else OUTSIDE

    def _entering(self, name: str) -> Any:
        def enter(module: nn.Module, inputs: Any) -> None:
            self._stack.append(name)

        return enter

    def _leaving(self, name: str) -> Any:
        def arrive(gradients: Any) -> None:
            self._in_backward = name

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            if name in self._stack:
                del self._stack[self._stack.index(name) :]
            for leaf in tree_leaves(output):
                if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                    leaf.grad_fn.register_prehook(arrive)

        return leave
