"""launch/prepare.py: a thin command over `lofi.data`."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "prepare.py"
FLAGS = ("--videos", "2", "--trimmed-videos", "3", "--size", "16", "--duration-sec", "4", "--clip-sec", "0.5")


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("prepare_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_synthetic_writes_the_benchmark_and_says_where(prepare, tmp_path, capsys):
    output = tmp_path / "bench"
    assert prepare.main(["synthetic", "--output", str(output), *FLAGS]) == 0
    assert "untrimmed/annotations.json" in capsys.readouterr().out.replace("\n", "")
    assert len(list(output.rglob("*.mp4"))) == (2 + 2) + (3 + 1)


def test_another_configuration_exits_2_with_one_message(prepare, tmp_path, capsys):
    output = tmp_path / "bench"
    assert prepare.main(["synthetic", "--output", str(output), *FLAGS]) == 0
    assert prepare.main(["synthetic", "--output", str(output), *FLAGS, "--scene-correlation", "0.5"]) == 2
    assert "scene_correlation 1.0 (wanted 0.5)" in capsys.readouterr().err


def test_wrong_value_exits_2_and_names_the_key(prepare, tmp_path, capsys):
    assert prepare.main(["synthetic", "--output", str(tmp_path), "--classes", "1"]) == 2
    assert "synthetic.classes is 1; it must be 2 to 8" in capsys.readouterr().err


def test_help_shows_the_commands_to_copy(prepare, capsys):
    with pytest.raises(SystemExit):
        prepare.main(["synthetic", "--help"])
    assert "python launch/prepare.py synthetic --output" in capsys.readouterr().out
