"""From live tensors to what a GPU must have free: the terms between them, each with its name.

The numbers lie in `gpu_terms.json`, which says whether they were calibrated against measurements on a GPU, and which.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TERMS_FILE = Path(__file__).with_name("gpu_terms.json")
"""As `GpuTerms`, but cublas_workspace_bytes by the least compute capability that has it."""


@dataclass(frozen=True, kw_only=True)
class GpuTerms:
    """What the allocator, the libraries and the driver add."""

    calibrated: bool
    """True where the numbers were fitted to measurements."""
    source: str
    block_bytes: int
    """The allocator rounds every tensor up to a multiple of this."""
    cublas_workspace_bytes: int
    """Held from the first matrix product on; PyTorch chooses it by the compute capability."""
    cudnn_workspace_bytes: int
    """Of the convolution that runs at the peak."""
    fragmentation_share: float
    """Reserved but not allocated, as a share of the allocated bytes."""
    cuda_context_bytes: int
    """Of the process, outside PyTorch's allocator."""


@dataclass(frozen=True, kw_only=True)
class GpuBytes:
    """Predicted bytes on one GPU."""

    rounded: int
    """The peak of live tensors, each rounded to the allocator's blocks."""
    allocated: int
    """To be compared with `torch.cuda.max_memory_allocated`."""
    reserved: int
    """To be compared with `torch.cuda.max_memory_reserved`."""
    device: int
    """What the process takes on the GPU (as nvidia-smi shows it): this must fit."""


@cache
def read_gpu_terms(capability: tuple[int, int] = (0, 0)) -> GpuTerms:
    """The terms of this version of the package, for a compute capability; where it is not known, for the oldest."""
    plain = json.loads(TERMS_FILE.read_text())
    by_capability = {
        tuple(map(int, key.split("."))): value for key, value in plain["cublas_workspace_bytes"].items()
    }
    known = max(key for key in by_capability if key <= capability)
    return GpuTerms(**{**plain, "cublas_workspace_bytes": by_capability[known]})


def gpu_bytes(rounded_peak_bytes: int, terms: GpuTerms) -> GpuBytes:
    """The peak of live tensors, rounded to the allocator's blocks -> bytes on the GPU."""
    allocated = rounded_peak_bytes + terms.cublas_workspace_bytes + terms.cudnn_workspace_bytes
    reserved = round(allocated * (1 + terms.fragmentation_share))
    return GpuBytes(
        rounded=rounded_peak_bytes,
        allocated=allocated,
        reserved=reserved,
        device=reserved + terms.cuda_context_bytes,
    )
