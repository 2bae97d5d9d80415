import torch
from torch import nn

from lofi.memory.counting import LiveTensorCount, storage_bytes


def test_the_peak_counts_what_is_alive_together_to_the_byte():
    with LiveTensorCount([], device_type="cpu") as count:
        first = torch.zeros(1000, dtype=torch.uint8)
        second = torch.zeros(500, dtype=torch.uint8)
        del first
        third = torch.zeros(700, dtype=torch.uint8)
        assert count.live_bytes == 1200
        del second, third
        assert count.live_bytes == 0
    assert count.peak_bytes == 1500


def test_a_count_that_is_over_keeps_its_history_whatever_is_freed_then():
    """A garbage collection may free storages while the history is read."""
    with LiveTensorCount([], device_type="cpu") as count:
        tensor = torch.zeros(1000, dtype=torch.uint8)
    history = list(count.events)
    del tensor
    assert count.events == history
    assert count.live_bytes == 1000


def test_known_tensors_count_once_and_views_never():
    known = torch.zeros(100, dtype=torch.uint8)
    with LiveTensorCount([known, known[10:]], device_type="cpu") as count:
        _ = known.view(10, 10).transpose(0, 1)
    assert count.peak_bytes == 100


def test_a_linear_step_holds_input_output_and_gradients():
    """Forward keeps the input; the peak is known by hand: weight, its gradient, input, output, output's gradient."""
    layer = nn.Linear(30, 50, bias=False)
    x = torch.ones(20, 30)
    with LiveTensorCount([layer.weight, x], device_type="cpu") as count:
        layer(x).backward(torch.ones(20, 50))
    weight, inputs, outputs = 30 * 50 * 4, 20 * 30 * 4, 20 * 50 * 4
    assert count.live_bytes >= weight + inputs + weight
    assert weight * 2 + inputs + outputs <= count.peak_bytes <= weight * 2 + inputs + 2 * outputs


def test_storage_bytes_counts_shared_storage_once():
    base = torch.zeros(8, dtype=torch.float32)
    assert storage_bytes([base, base[2:], torch.zeros(3, dtype=torch.uint8)]) == 35
