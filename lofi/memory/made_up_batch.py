"""A batch of the right shapes and no content: what a step needs where no data is at hand."""

from collections.abc import Collection

import torch

from lofi.batches import Views, WindowBatch
from lofi.fidelity import Fidelity
from lofi.segments import Targets, Window


def made_up_batch(
    fidelity: Fidelity,
    *,
    num_windows: int,
    num_segments: int,
    num_classes: int,
    feature_width: int | None = None,
    decoded: Fidelity | None = None,
    drawn: Collection[str] = (),
    host: torch.device | None = None,
) -> WindowBatch:
    """Windows full of zeros, all of them valid, with segments side by side.

    Args:
        fidelity: L, T, H and W.
        num_windows: B.
        num_segments: N of each window, at least 1.
        num_classes: labels go round them.
        feature_width: D: a batch of features; None: a batch of frames.
        decoded: the frames' own size where views cut `fidelity` out of them or mirror them; None: no views.
        drawn: of `Views`' color_factors, is_grey and blur_sigma, those that there are. Only with `decoded`.
        host: where frames, features and mask lie; the CPU where None.

    Returns:
        Frames (B, L, 3, T, H, W) uint8 or features (B, L, D) float32; mask (B, L) True.
    """
    length = fidelity.num_snippets
    edges = torch.linspace(0, length, num_segments + 1)
    targets = Targets(
        segments=torch.stack([edges[:-1], edges[1:]], dim=1),
        labels=torch.arange(num_segments) % num_classes,
    )
    window = Window(video="made up", start_sec=0.0, end_sec=float(length), video_duration_sec=float(length))
    frames = features = views = None
    if feature_width is None:
        size = decoded or fidelity
        frames = torch.zeros(
            num_windows, length, 3, size.frames, size.height, size.width, dtype=torch.uint8, device=host
        )
        if decoded is not None:
            corner = torch.zeros(num_windows, dtype=torch.int64, device=host)
            views = Views(
                height=fidelity.height,
                width=fidelity.width,
                top=corner,
                left=corner.clone(),
                is_mirrored=corner.bool(),
                color_factors=torch.ones(num_windows, 3, device=host) if "color_factors" in drawn else None,
                is_grey=corner.bool() if "is_grey" in drawn else None,
                blur_sigma=torch.ones(num_windows, device=host) if "blur_sigma" in drawn else None,
            )
    else:
        features = torch.zeros(num_windows, length, feature_width, device=host)
    return WindowBatch(
        windows=(window,) * num_windows,
        targets=(targets,) * num_windows,
        mask=torch.ones(num_windows, length, dtype=torch.bool, device=host),
        frames=frames,
        views=views,
        features=features,
    )
