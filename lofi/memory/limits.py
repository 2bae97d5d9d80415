"""How much memory there is, and which errors say that it was not enough."""

import os
from pathlib import Path

import torch

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")

SIGNS = ("can't allocate memory", "CUDA error: out of memory", "_ALLOC_FAILED")
"""Of the CPU's allocator, of CUDA outside of PyTorch's allocator, of cuBLAS and cuDNN."""


def device_bytes() -> int:
    """All memory of the device that this process trains on, used or not; on a CPU what the container may use."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[1])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short.

    PyTorch raises a plain RuntimeError for it on a CPU, and where a library fails to get its workspace on a GPU.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
