"""What launch/ scripts share: one line and an exit code; on several ranks, one line for all of them."""

import pytest

from lofi import command


def raise_refusal():
    raise FileNotFoundError("no such folder: data")


@pytest.fixture
def held(monkeypatch):
    """The seconds that were waited, without waiting."""
    seconds = []
    monkeypatch.setattr(command.time, "sleep", seconds.append)
    return seconds


def test_rank_0_refuses_at_once(monkeypatch, capsys, held):
    monkeypatch.setenv("RANK", "0")
    assert command.run_command(raise_refusal) == 2
    assert capsys.readouterr().err == "error: no such folder: data\n"
    assert held == []


def test_another_rank_holds_its_refusal_back_until_rank_0_has_spoken(monkeypatch, capsys, held):
    monkeypatch.setenv("RANK", "3")
    assert command.run_command(raise_refusal) == 2
    assert capsys.readouterr().err == "rank 3: error: no such folder: data\n"
    assert held == [command.HOLD_SEC]
