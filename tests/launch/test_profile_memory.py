"""launch/profile_memory.py: what it refuses, and how it says so."""

import runpy
import subprocess
import sys

import pytest
from tiny_runs import ROOT, child_environment, recipe_file

SCRIPT = ROOT / "launch" / "profile_memory.py"


@pytest.fixture
def call(monkeypatch, capsys):
    """A function: main() in this process -> (exit code, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["launch/profile_memory.py", *map(str, arguments)])
        try:
            code = runpy.run_path(str(SCRIPT))["main"]()
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().err

    return run


def test_help_imports_nothing_heavy():
    program = (
        "import runpy, sys\n"
        "sys.argv = ['launch/profile_memory.py', '--help']\n"
        "try:\n"
        "    runpy.run_path('launch/profile_memory.py', run_name='__main__')\n"
        "except SystemExit:\n"
        "    print('heavy' if 'torch' in sys.modules else 'light')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=child_environment(), capture_output=True, text=True
    )
    assert run.stdout.splitlines()[-1] == "light"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such.yaml"], "no_such.yaml: no such recipe"),
        (["train.epochs=3"], "no recipe is given, only overrides"),
        ([recipe_file("full_tiny_actionformer"), "train.epoch=3"], "did you mean epochs?"),
        ([recipe_file("full_tiny_actionformer"), "--steps", "0"], "steps is 0; at least 1"),
        ([recipe_file("full_tiny_actionformer"), "--classes", "0"], "classes is 0; it must be at least 1"),
        ([recipe_file("full_tiny_actionformer"), "--predicted", "none.json"], "none.json does not exist"),
        ([recipe_file("full_tiny_actionformer"), "--predict", "--predicted", "x"], "not allowed with"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, call):
    code, error = call(*arguments)
    assert code == 2
    assert message in error
    assert "Traceback" not in error
