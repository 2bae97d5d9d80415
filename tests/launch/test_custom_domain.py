"""README's section "A new domain in one sitting": every command of it, on real videos, at smaller sizes.

The commands are read from the README and run as they stand, in a folder that has the videos and the table; overrides that make
the models small are added at their ends. The encoder's public weights are a file in torch's cache of downloads, random.
"""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from tiny_runs import ROOT

VIDEOS = ROOT.parent / "shared" / "data" / "videos"
TITLE = "## A new domain in one sitting"

SMALL_FRAMES = ["fidelity.num_snippets=16", "fidelity.frames=2", "fidelity.height=64", "fidelity.width=64"]
SMALL_HEAD = ["head.embed_width=16", "head.levels=3", "train.epochs=2", "train.checkpoint_every_epochs=1"]


def section():
    text = (ROOT / "README.md").read_text()
    return text.split(TITLE + "\n", 1)[1].split("\n## ", 1)[0]


def commands():
    return [shlex.split(line) for line in re.findall(r"^    uv run (launch/.*)$", section(), re.M)]


def table():
    """The indented block of the CSV."""
    lines = re.findall(r"^    ([\w.]+,.*)$", section(), re.M)
    assert lines[0] == "video,start,end,label"
    return "\n".join(lines) + "\n"


def smaller(command):
    """What is added to a command."""
    script, recipe = command[0], command[1]
    if script == "launch/extract.py":
        return SMALL_FRAMES
    if script == "launch/train.py":
        return [*SMALL_HEAD, *(SMALL_FRAMES if "lofi" in Path(recipe).name else [])]
    return []


def download_names(monkeypatch, cache):
    """Put random weights where torchvision looks for downloaded ones."""
    monkeypatch.setenv("TORCH_HOME", str(cache))
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    file = cache / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), file)


def test_the_section_goes_from_a_table_to_pages():
    scripts = [" ".join(command[:2]) if "prepare" in command[0] else command[0] for command in commands()]
    assert scripts == [
        "launch/prepare.py csv",
        "launch/prepare.py check",
        "launch/prepare.py split",
        "launch/extract.py",
        "launch/train.py",
        "launch/train.py",
        "launch/extract.py",
        "launch/train.py",
        "launch/evaluate.py",
        "launch/predict.py",
    ]


@pytest.mark.timeout(400)
def test_every_command_of_the_section_runs(call, tmp_path, monkeypatch):
    names = sorted({line.split(",")[0] for line in table().splitlines()[1:]})
    if not all((VIDEOS / name).is_file() for name in names):
        pytest.skip(f"no real videos in {VIDEOS}")
    folder = tmp_path / "data" / "custom"
    (folder / "videos").mkdir(parents=True)
    for name in names:
        shutil.copy(VIDEOS / name, folder / "videos" / name)
    (folder / "segments.csv").write_text(table())
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    download_names(monkeypatch, tmp_path / "cache")
    monkeypatch.chdir(tmp_path)

    for command in commands():
        code, output, error = call(Path(command[0]).stem, *command[1:], *smaller(command))
        assert code in (0, None), f"{shlex.join(command)}\n{output}\n{error}"

    subsets = {
        name: video["subset"]
        for name, video in json.loads((folder / "annotations.json").read_text())["database"].items()
    }
    assert sorted(subsets.values()) == ["training", "training", "validation"]
    run = tmp_path / "runs" / "custom" / "frozen_lofi"
    validation = next(name for name, subset in subsets.items() if subset == "validation")
    evaluated = json.loads((run / "predictions.json").read_text())["results"][validation]
    predicted = json.loads((run / "predictions" / "predictions.json").read_text())["results"]
    assert predicted.keys() == subsets.keys()
    assert len(predicted[validation]) == len(evaluated)
    for mine, theirs in zip(predicted[validation], evaluated, strict=True):
        assert mine["score"] == pytest.approx(theirs["score"], rel=1e-4)
    for name in subsets:
        page = (run / "predictions" / "pages" / f"{name}.html").read_text()
        assert "annotated: action" in page
