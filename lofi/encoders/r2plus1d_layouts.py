"""The two networks of 34 layers that are called R(2+1)D and have public weights, on torchvision's modules.

Both keep in each (2+1)D convolution the parameters of the 3D convolution in its place, by its own widths;
torchvision's blocks hand the first convolution's middle channels to both.

- `published_34`: the paper's, of IG-65M and TSP. Stem of 45 middle channels, plain shortcuts, every norm with an epsilon of
  1e-3. Space is divided by 16.
- `mmaction2_34`: MMAction2's (mmaction/models/backbones/resnet2plus1d.py, configs/_base_/models/r2plus1d_r34.py). Stem of 83
  middle channels and a spatial maximum after it, shortcuts that are (2+1)D convolutions too, norms inside a (2+1)D convolution
  with an epsilon of 1e-5. Space is divided by 32.
"""

from torch import nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

BLOCKS = [3, 4, 6, 3]
OUTER_EPSILON = 1e-3
INNER_EPSILON = 1e-5


def published_34() -> VideoResNet:
    """The network of the paper's public weights."""
    network = VideoResNet(BasicBlock, [_OwnMiddle] * 4, BLOCKS, R2Plus1dStem)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = OUTER_EPSILON
    return network


def mmaction2_34() -> VideoResNet:
    """MMAction2's network."""
    network = VideoResNet(BasicBlock, [_OwnMiddle] * 4, BLOCKS, R2Plus1dStem)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = OUTER_EPSILON
    for module in network.modules():
        if isinstance(module, Conv2Plus1D):
            module[1].eps = INNER_EPSILON
    for stage in (network.layer2, network.layer3, network.layer4):
        shortcut = stage[0].downsample
        num_in, num_out = shortcut[0].in_channels, shortcut[0].out_channels
        shortcut[0] = nn.Sequential(*_conv_2plus1d(num_in, num_out, kernel=(1, 1), stride=(2, 2)))
    network.stem = nn.Sequential(
        *_conv_2plus1d(3, 64, kernel=(3, 7), stride=(1, 2)),
        nn.BatchNorm3d(64, eps=OUTER_EPSILON),
        nn.ReLU(inplace=True),
        nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    )
    return network


class _OwnMiddle(Conv2Plus1D):
    def __init__(
        self, in_planes: int, out_planes: int, midplanes: int, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__(
            in_planes, out_planes, _middle(in_planes, out_planes, time=3, side=3), stride, padding
        )


def _middle(num_in: int, num_out: int, *, time: int, side: int) -> int:
    """Middle channels (the paper's section 3.5); MMAction2 counts 3 times whatever the kernel has."""
    return (num_in * num_out * time * side * side) // (num_in * side * side + time * num_out)


def _conv_2plus1d(
    num_in: int, num_out: int, *, kernel: tuple[int, int], stride: tuple[int, int]
) -> list[nn.Module]:
    """Space, norm, ReLU, time; `kernel` and `stride` in time and space."""
    (time, side), (stride_time, stride_side) = kernel, stride
    middle = _middle(num_in, num_out, time=3, side=side)
    return [
        nn.Conv3d(
            num_in,
            middle,
            (1, side, side),
            stride=(1, stride_side, stride_side),
            padding=(0, side // 2, side // 2),
            bias=False,
        ),
        nn.BatchNorm3d(middle, eps=INNER_EPSILON),
        nn.ReLU(inplace=True),
        nn.Conv3d(
            middle, num_out, (time, 1, 1), stride=(stride_time, 1, 1), padding=(time // 2, 0, 0), bias=False
        ),
    ]
