import json
import threading

import pytest

from lofi.files import write_atomically, write_bytes, write_json, write_text


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_content_is_written_as_it_is_and_folders_are_made(tmp_path):
    write_bytes(tmp_path / "a" / "b.bin", b"\0\1")
    write_text(tmp_path / "a" / "c.txt", "é\n")
    write_json(tmp_path / "a" / "d.json", {"é": [1, None]})
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"\0\1"
    assert (tmp_path / "a" / "c.txt").read_bytes() == "é\n".encode()
    text = (tmp_path / "a" / "d.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"é": [1, None]}
    assert text.endswith("}\n")
    assert files_below(tmp_path) == ["b.bin", "c.txt", "d.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(partial):
        partial.write_text("half of it")
        assert path.read_text() == "old"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert files_below(tmp_path) == ["a.txt"]


def test_json_without_a_number_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert files_below(tmp_path) == []


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.txt"
    texts = [str(number) * 50_000 for number in range(6)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert files_below(tmp_path) == ["a.txt"]
