import pytest

from lofi.engine.precision import autocast_section, check_precision, resolve_precision

FINE = {"device_type": "cuda", "zero_stage": 2, "has_temporal_convolution": True}


@pytest.mark.parametrize(
    ("device", "has_bf16", "stage", "expected"),
    [
        ("cpu", False, 0, "fp32"),
        ("cuda", True, 3, "bf16"),
        ("cuda", False, 0, "fp16"),
        ("cuda", False, 1, "fp32"),
    ],
)
def test_auto_takes_what_the_device_does_well(device, has_bf16, stage, expected):
    assert resolve_precision("auto", device_type=device, has_bf16=has_bf16, zero_stage=stage) == expected


def test_an_explicit_precision_is_kept():
    assert resolve_precision("fp16", device_type="cuda", has_bf16=True, zero_stage=0) == "fp16"


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_fp16_is_refused_under_zero(stage):
    with pytest.raises(ValueError, match="clips the scaled gradients.*zero_optimization.stage: 0"):
        check_precision("fp16", **{**FINE, "zero_stage": stage})


def test_fp16_is_allowed_at_stage_zero():
    check_precision("fp16", **{**FINE, "zero_stage": 0})


def test_bf16_on_a_cpu_is_refused_for_temporal_convolutions_alone():
    on_cpu = {**FINE, "device_type": "cpu"}
    with pytest.raises(ValueError, match="wrong gradients for this encoder's temporal convolutions"):
        check_precision("bf16", **on_cpu)
    check_precision("bf16", **{**on_cpu, "has_temporal_convolution": False})
    check_precision("bf16", **FINE)


def test_sections_are_those_of_deepspeed():
    assert autocast_section("fp32") == {}
    assert autocast_section("bf16") == {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}
