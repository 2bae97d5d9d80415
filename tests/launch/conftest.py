"""The scripts of launch/, called in this process."""

import sys

import pytest
from tiny_runs import ROOT


@pytest.fixture
def call(monkeypatch, capsys):
    """A function: a script's main() in this process -> (exit code, stdout, stderr)."""

    def run(name, *arguments):
        import runpy

        monkeypatch.setattr(sys, "argv", [f"launch/{name}.py", *map(str, arguments)])
        # The real one ends the process that joined the ranks, and here that is the tests' own.
        monkeypatch.setattr("lofi.engine.deepspeed_engine.end_process", sys.exit)
        script = runpy.run_path(str(ROOT / "launch" / f"{name}.py"))
        try:
            code = script["main"]()
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
