"""How much memory there is, and which errors say that it was not enough."""

import os
import re
from pathlib import Path

import torch

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")

MEMORY_INFO = Path("/proc/meminfo")
RESIDENT = Path("/proc/self/statm")

SIGNS = ("can't allocate memory", "CUDA error: out of memory", "_ALLOC_FAILED")
"""Of the CPU's allocator, of CUDA outside of PyTorch's allocator, of cuBLAS and cuDNN."""


def device_bytes() -> int:
    """All memory of the device that this process trains on, used or not; on a CPU what the container may use."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[1])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total


def available_bytes() -> int:
    """Of that memory, what this process holds and what nobody holds: what it could have had at most."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0]) + torch.cuda.memory_reserved()
    free = re.search(r"^MemAvailable:\s*(\d+) kB", MEMORY_INFO.read_text(), flags=re.MULTILINE)
    assert free is not None
    resident_pages = int(RESIDENT.read_text().split()[1])
    return min(device_bytes(), int(free[1]) * 1024 + resident_pages * os.sysconf("SC_PAGE_SIZE"))


def check_can_limit() -> None:
    """Raise ValueError on a CPU, whose allocator takes no limit."""
    if not torch.cuda.is_available():
        raise ValueError(
            "--limit caps the memory of a GPU, and there is none here; on a CPU let a container or systemd-run cap it."
        )


def limit_device(limit_bytes: int, *, outside_bytes: int) -> None:
    """Let PyTorch's allocator refuse what a smaller card would not have.

    Args:
        limit_bytes: all memory of that card.
        outside_bytes: of it, what lies outside the allocator (the CUDA context).

    Raises:
        ValueError: the limit is above this card's memory, or leaves the allocator nothing.
    """
    total = device_bytes()
    if not outside_bytes < limit_bytes <= total:
        raise ValueError(
            f"--limit is {limit_bytes} bytes; it must lie between {outside_bytes} (the CUDA context) and {total}, the memory "
            "of this GPU."
        )
    torch.cuda.set_per_process_memory_fraction((limit_bytes - outside_bytes) / total)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short.

    PyTorch raises a plain RuntimeError for it on a CPU, and where a library fails to get its workspace on a GPU.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
