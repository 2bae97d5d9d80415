"""The log of a run: one JSON line per step in metrics.jsonl, and the same scalars for TensorBoard."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from lofi.files import write_text
from lofi.progress import is_main_rank


class MetricsLog:
    """Appends steps; on the other ranks it does nothing. Use it as a context manager."""

    def __init__(self, path: Path, *, tensorboard: Path, first_step: int) -> None:
        """Args: path of metrics.jsonl; folder for TensorBoard; first_step: lines of this step and later are dropped,
        because a resumed run goes through them again."""
        self._file = None
        if is_main_rank():
            kept = [line for line in _lines(path) if json.loads(line)["step"] < first_step]
            write_text(path, "".join(kept))
            self._file = path.open("a")
            from torch.utils.tensorboard import SummaryWriter  # half a second that planning need not wait

            self._writer = SummaryWriter(str(tensorboard), purge_step=first_step, max_queue=50)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._writer.close()

    def write_scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers for TensorBoard alone, beside those of the step."""
        if self._file is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One step: numbers go to both logs, everything else to the JSON line alone."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The steps of a run so far; a last line that was cut off by a crash is left out."""
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]
