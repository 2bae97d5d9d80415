"""The house's one rule about imports: a room imports rooms below it, and never its neighbours in layer 1."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = {
    "segments": 0,
    "fidelity": 0,
    "batches": 0,
    "protocols": 0,
    "progress": 0,
    "files": 0,
    "run_files": 0,
    "data": 1,
    "encoders": 1,
    "heads": 1,
    "evaluation": 1,
    "probes": 2,
    "objectives": 2,
    "gradients": 2,
    "detector": 2,
    "extraction": 2,
    "inference": 2,
    "engine": 3,
    "memory": 3.5,
    "config": 4,
    "report": 0.5,
    "stages": 5,
    "command": 5,
}
"""report stands beside: it reads JSON, and imports layer 0 alone."""

ONLY_HERE = {
    "omegaconf": "lofi/config/load.py",
    "decord": "lofi/data/decord_frames.py",
    "deepspeed": "lofi/engine/deepspeed_engine.py",
}


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    return modules


def room_of(path: Path) -> str:
    part = path.relative_to(ROOT / "lofi").parts[0]
    return part.removesuffix(".py")


@pytest.mark.parametrize("path", python_files("lofi"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_below_it(path):
    room = room_of(path)
    if room == "__init__":
        return
    for module in imported_modules(path):
        parts = module.split(".")
        assert parts[0] not in ("sola", "launch"), f"{path} imports {module}"
        if parts[0] != "lofi" or len(parts) == 1 or parts[1] not in LAYERS or parts[1] == room:
            continue
        below, here = LAYERS[parts[1]], LAYERS[room]
        both_plain = below == here == 0 or below == here == 2
        assert below < here or both_plain, f"{path} (layer {here}) imports {module} (layer {below})"


SOLA_MAY_IMPORT = {name for name, layer in LAYERS.items() if layer == 0} | {"data", "engine", "config"}


@pytest.mark.parametrize("path", python_files("sola"), ids=lambda path: str(path.relative_to(ROOT)))
def test_sola_imports_neither_encoders_nor_heads(path):
    for module in imported_modules(path):
        parts = module.split(".")
        assert parts[0] != "launch", f"{path} imports {module}"
        if parts[0] == "lofi" and len(parts) > 1:
            assert parts[1] in SOLA_MAY_IMPORT, f"{path} imports {module}"


@pytest.mark.parametrize(("library", "home"), ONLY_HERE.items())
def test_a_library_is_imported_in_one_place(library, home):
    users = [
        str(path.relative_to(ROOT))
        for path in python_files("lofi") + python_files("sola") + python_files("launch")
        if any(module.split(".")[0] == library for module in imported_modules(path))
    ]
    assert users in ([home], [])


def test_every_room_has_a_layer():
    rooms = {room_of(path) for path in python_files("lofi")} - {"__init__"}
    assert rooms == set(LAYERS)


def test_no_file_is_named_after_nothing():
    names = {path.stem for folder in ("lofi", "sola", "launch", "tests") for path in python_files(folder)}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_no_script_hides_a_module_of_the_standard_library():
    import sys

    assert not {path.stem for path in python_files("launch")} & set(sys.stdlib_module_names)
