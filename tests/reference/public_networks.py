"""Forward passes of public networks, straight from the tensors of their checkpoints under the original names.

Written from the papers and the projects' module definitions, as plain functions: to check that a checkpoint computes the same
here, whatever names and modules it is brought to.
"""

import math

import torch
from torch.nn import functional as F


def videomae_feature(state, clip, *, depth, heads):
    """VideoMAE's fine-tuned encoder: clip (N, 3, T, H, W) float -> (N, D), what its head is given."""
    patch = state["patch_embed.proj.weight"].shape[-1]
    x = F.conv3d(
        clip, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=(2, patch, patch)
    )
    x = x.flatten(2).transpose(1, 2)
    num, width = x.shape[1:]
    table = [
        [
            (math.sin if column % 2 == 0 else math.cos)(position / 10000 ** (2 * (column // 2) / width))
            for column in range(width)
        ]
        for position in range(num)
    ]
    x = x + torch.tensor(table)
    for index in range(depth):
        part = {
            key.split(".", 2)[2]: value for key, value in state.items() if key.startswith(f"blocks.{index}.")
        }
        y = _norm(x, part["norm1.weight"], part["norm1.bias"], eps=1e-6)
        weights_q, weights_k, weights_v = part["attn.qkv.weight"].chunk(3)
        query = y @ weights_q.T + part["attn.q_bias"]
        key, value = y @ weights_k.T, y @ weights_v.T + part["attn.v_bias"]
        mixed = []
        for head in range(heads):
            at = slice(head * width // heads, (head + 1) * width // heads)
            scores = query[..., at] @ key[..., at].transpose(1, 2) / math.sqrt(width / heads)
            mixed.append(scores.softmax(dim=-1) @ value[..., at])
        x = x + torch.cat(mixed, dim=-1) @ part["attn.proj.weight"].T + part["attn.proj.bias"]
        x = x + _mlp(_norm(x, part["norm2.weight"], part["norm2.bias"], eps=1e-6), part)
    return _norm(x.mean(dim=1), state["fc_norm.weight"], state["fc_norm.bias"], eps=1e-6)


def swin_in_one_window(state, clip, *, depths, heads, window):
    """MMAction2's Swin on a clip that fits one window at every stage, where nothing is shifted: (N, 3, T, H, W) float ->
    (N, T', H', W', D) after the last norm."""
    state = {key.removeprefix("backbone."): value for key, value in state.items()}
    x = F.conv3d(clip, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=(2, 4, 4))
    x = x.permute(0, 2, 3, 4, 1)
    x = _norm(x, state["patch_embed.norm.weight"], state["patch_embed.norm.bias"])
    for stage, (depth, num_heads) in enumerate(zip(depths, heads, strict=True)):
        grid = x.shape[1:4]
        assert all(size <= most for size, most in zip(grid, window, strict=True))
        for index in range(depth):
            prefix = f"layers.{stage}.blocks.{index}."
            part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            y = _norm(x, part["norm1.weight"], part["norm1.bias"]).flatten(1, 3)
            x = x + _window_attention(y, part, num_heads, window=window).unflatten(1, grid)
            x = x + _mlp(_norm(x, part["norm2.weight"], part["norm2.bias"]), part)
        if stage < len(depths) - 1:
            corners = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            merging = f"layers.{stage}.downsample."
            y = _norm(
                torch.cat(corners, dim=-1), state[merging + "norm.weight"], state[merging + "norm.bias"]
            )
            x = y @ state[merging + "reduction.weight"].T
    return _norm(x, state["norm3.weight"], state["norm3.bias"])


def relative_positions(window):
    """(P, P): which row of the bias table is for two positions of a window, numbered row by row."""
    places = [(t, h, w) for t in range(window[0]) for h in range(window[1]) for w in range(window[2])]
    spans = [2 * size - 1 for size in window]
    rows = []
    for one in places:
        steps = [
            [a - b + size - 1 for a, b, size in zip(one, other, window, strict=True)] for other in places
        ]
        rows.append([(t * spans[1] + h) * spans[2] + w for t, h, w in steps])
    return torch.tensor(rows)


def _window_attention(y, part, num_heads, *, window):
    num, width = y.shape[1:]
    query, key, value = (y @ part["attn.qkv.weight"].T + part["attn.qkv.bias"]).chunk(3, dim=-1)
    bias = part["attn.relative_position_bias_table"][relative_positions(window)[:num, :num]]
    mixed = []
    for head in range(num_heads):
        at = slice(head * width // num_heads, (head + 1) * width // num_heads)
        scores = query[..., at] @ key[..., at].transpose(1, 2) / math.sqrt(width / num_heads)
        mixed.append((scores + bias[..., head]).softmax(dim=-1) @ value[..., at])
    return torch.cat(mixed, dim=-1) @ part["attn.proj.weight"].T + part["attn.proj.bias"]


def r2plus1d_features(state, clip, *, blocks):
    """MMAction2's R(2+1)D: clip (N, 3, T, H, W) float -> (N, D), the mean of its last feature map."""
    state = {key.removeprefix("backbone."): value for key, value in state.items()}

    def batch_norm(x, name, *, eps):
        values = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *values, eps=eps)

    def conv(x, name, *, stride, padding):
        x = F.conv3d(
            x,
            state[f"{name}.conv.conv_s.weight"],
            stride=(1, stride[1], stride[1]),
            padding=(0, padding[1], padding[1]),
        )
        x = F.relu(batch_norm(x, f"{name}.conv.bn_s", eps=1e-5))
        x = F.conv3d(
            x, state[f"{name}.conv.conv_t.weight"], stride=(stride[0], 1, 1), padding=(padding[0], 0, 0)
        )
        return batch_norm(x, f"{name}.bn", eps=1e-3)

    x = F.relu(conv(clip, "conv1", stride=(1, 2), padding=(1, 3)))
    x = F.max_pool3d(x, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
    for stage, num_blocks in enumerate(blocks):
        for index in range(num_blocks):
            name = f"layer{stage + 1}.{index}"
            stride = (2, 2) if stage > 0 and index == 0 else (1, 1)
            y = F.relu(conv(x, f"{name}.conv1", stride=stride, padding=(1, 1)))
            y = conv(y, f"{name}.conv2", stride=(1, 1), padding=(1, 1))
            if f"{name}.downsample.bn.weight" in state:
                x = conv(x, f"{name}.downsample", stride=stride, padding=(0, 0))
            x = F.relu(x + y)
    return x.mean(dim=(2, 3, 4))


def _mlp(y, part):
    hidden = F.gelu(y @ part["mlp.fc1.weight"].T + part["mlp.fc1.bias"])
    return hidden @ part["mlp.fc2.weight"].T + part["mlp.fc2.bias"]


def _norm(x, weight, bias, *, eps=1e-5):
    return F.layer_norm(x, weight.shape, weight, bias, eps)
