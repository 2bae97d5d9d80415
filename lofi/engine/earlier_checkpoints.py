"""Checkpoints that an older version of the package wrote, with other buffers or optimizer groups: refused by name.

The weights of such a checkpoint are as good as any; the rest of a run's state is not what this version would go on with. Read
as it is, it ends in an error of PyTorch's, or in moments of the optimizer that belong to other weights.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lofi.engine import deepspeed_engine
from lofi.run_files import WEIGHTS_FILE

NUM_SHOWN = 5
"""Buffers that a message names."""


def check_fits(engine: Any, checkpoint: Path, *, buffers: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a checkpoint's buffers or optimizer groups are not those of the engine.

    Args:
        engine: from `deepspeed_engine.build_engine`.
        checkpoint: whole; of the same recipe, ZeRO stage and number of ranks.
        buffers: those of this rank in the checkpoint.
    """
    saved, now = (
        {(name, tuple(buffer.shape)) for name, buffer in each}
        for each in (buffers.items(), engine.module.named_buffers())
    )
    faults = []
    if now - saved:
        faults.append(f"it lacks the buffers {_shown(now - saved)}")
    if saved - now:
        faults.append(f"it holds the buffers {_shown(saved - now)}, which this version does not have")
    groups, groups_now = _groups(engine, checkpoint)
    if groups != groups_now:
        faults.append(
            f"its optimizer has the groups {_described(groups)}, where this version makes {_described(groups_now)}"
        )
    if faults:
        raise ValueError(
            f"checkpoint {checkpoint} was written by another version of this package and cannot be resumed: "
            f"{'; '.join(faults)}. Start a new run from its {WEIGHTS_FILE}."
        )


Group = tuple[str, tuple[str, ...]]
"""Name of an optimizer's group, and what is known of its tensors."""


def _groups(engine: Any, checkpoint: Path) -> tuple[list[Group], list[Group]]:
    """In the checkpoint, and now. At stage 0 the file knows names of groups and numbers of tensors; at the others, whose
    optimizers hold flat partitions, names of tensors."""
    state = deepspeed_engine.read_saved_state(engine, checkpoint)
    if engine.zero_optimization_stage() == 0:
        both = (state["optimizer"]["param_groups"], engine.optimizer.param_groups)
        found = [[(str(group.get("name")), ("",) * len(group["params"])) for group in each] for each in both]
    else:
        both = (state["param_shapes"], deepspeed_engine.group_shapes(engine))
        found = [
            [(" to ".join([*group][:1] + [*group][-1:]), tuple(group)) for group in each] for each in both
        ]
    return found[0], found[1]


def _described(groups: list[Group]) -> str:
    return ", ".join(f"{name} ({len(tensors)} tensors)" for name, tensors in groups)


def _shown(buffers: set[tuple[str, tuple[int, ...]]]) -> str:
    listed = [f"{name} {list(shape)}" for name, shape in sorted(buffers)]
    return ", ".join(listed[:NUM_SHOWN]) + (
        f" and {len(listed) - NUM_SHOWN} more" if len(listed) > NUM_SHOWN else ""
    )
