"""A bottleneck with a temporal convolution, beside a frozen or a learning network: few weights that can look at motion.

After the temporal-informative adapter of AdaTAD (Liu et al., CVPR 2024, arXiv:2311.17241, section 3.3): down, GELU, a
depth-wise convolution over three times and a point-wise one as a residual, up. Unlike there the convolution stays
inside the snippet (zeros outside), so that a snippet's feature does not depend on its neighbours and chunks stay
exact, and the last layer starts at zero in place of a learnt scale: at first the adapter changes nothing.
"""

from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

BOTTLENECK = 4
"""Width of the features divided by that of the bottleneck."""


class TemporalAdapter(nn.Module):
    """x -> x + up(h + mix(h)), h = GELU(down(x))."""

    def __init__(self, width: int) -> None:
        """`width`: D of the features."""
        super().__init__()
        inner = max(1, width // BOTTLENECK)
        self.down = nn.Linear(width, inner)
        self.temporal = nn.Conv1d(inner, inner, kernel_size=3, padding=1, groups=inner)
        self.point = nn.Linear(inner, inner)
        self.up = nn.Linear(inner, width)
        for layer in (self.down, self.point):
            trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, num_times: int) -> Tensor:
        """(N, T * S, D), time by time the S positions of a frame -> the same shape."""
        h_NPD = F.gelu(self.down(x))
        h_NTSD = h_NPD.unflatten(1, (num_times, -1))
        num_positions = h_NTSD.shape[2]
        lines = h_NTSD.permute(0, 2, 3, 1).flatten(0, 1)
        mixed = self.temporal(lines).unflatten(0, (-1, num_positions)).permute(0, 3, 1, 2).flatten(1, 2)
        return x + self.up(h_NPD + self.point(mixed))
