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
    shown = capsys.readouterr().out
    assert shown.count("python launch/prepare.py synthetic --output") == 3
    assert "features" not in shown  # of other commands


def test_help_of_a_table_names_all_its_columns(prepare, capsys):
    with pytest.raises(SystemExit):
        prepare.main(["csv", "--help"])
    shown = capsys.readouterr().out
    assert "`video,start,end,label[,subset][,group][,duration][,fps][,video_start]`" in shown
    assert "python launch/prepare.py csv --source" in shown


def test_help_shows_a_command_of_two_lines_whole(prepare, capsys):
    with pytest.raises(SystemExit):
        prepare.main(["features", "--help"])
    assert "--stride-frames 4 --frames 16 --name i3d" in capsys.readouterr().out
