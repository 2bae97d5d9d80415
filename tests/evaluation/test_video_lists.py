"""Lists of videos and of Ambiguous stretches: the forms that public files have, and what is wrong in others."""

from pathlib import Path

import pytest

from lofi.evaluation.video_lists import read_ambiguous, read_video_names


@pytest.mark.parametrize("content", ['["b", "a", "b"]', "b\n\n  a \nb\n", "\ufeffb\r\na\r\n"])
def test_names_come_from_json_or_lines_once_each(tmp_path: Path, content: str) -> None:
    path = tmp_path / "blocked.json"
    path.write_bytes(content.encode("utf-8"))
    assert read_video_names(path) == ("b", "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names no video"),
        ("[]", "names no video"),
        ('["a", 3]', "must be a list of names"),
        ('{"a": 1}', "must be a list of names"),
        ('["a"', "not JSON: .*line 1 column 5"),
    ],
)
def test_lists_that_hold_something_else_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "blocked.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"blocked\.json: {message}"):
        read_video_names(path)


def test_ambiguous_stretches_are_read_by_video(tmp_path: Path) -> None:
    path = tmp_path / "Ambiguous_test.txt"
    path.write_text("v1  0.0 1.4\n\nv2 3 4.5\nv1\t9 11\n")
    assert read_ambiguous(path) == {"v1": [(0.0, 1.4), (9.0, 11.0)], "v2": [(3.0, 4.5)]}


@pytest.mark.parametrize("line", ["v 1", "v 1 2 3", "v one 2", "v 1 nan", "v 2 1"])
def test_ambiguous_line_that_is_no_stretch_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "Ambiguous_test.txt"
    path.write_text(f"v 0 1\n{line}\n")
    with pytest.raises(
        ValueError, match=rf"Ambiguous_test\.txt, line 2 is '{line}'; it must be VIDEO START END"
    ):
        read_ambiguous(path)
    with pytest.raises(ValueError, match=r"absent\.txt: cannot be read"):
        read_ambiguous(tmp_path / "absent.txt")
