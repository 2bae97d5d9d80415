"""Feature files of other tools, read through one reader: a video's two axes as they are stored, whatever holds them.

a folder    one file per video: VIDEO.npy, .npz, .pt, .pth, .h5 or .hdf5
one file    .npz, .pt, .pth, .h5 or .hdf5: video -> array, or video -> group (or dictionary) with the array in it

Nothing in a file is run: pickled objects are refused (`allow_pickle=False`, `weights_only=True`). HDF5 needs h5py, the
optional extra `hdf5`. Which of the two axes is time is not known here (`lofi.data.feature_layout`).
"""

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ONE_PER_VIDEO = (".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5")
ONE_FOR_ALL = (".npz", ".pt", ".pth", ".h5", ".hdf5")

_NUM_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class FeatureFiles:
    """The features of many videos, wherever they lie. Made by `open_feature_files`."""

    path: Path
    names: frozenset[str]
    """What the videos are called there."""
    _load: Callable[[str], Any]

    def shape(self, name: str) -> tuple[int, int]:
        """The two axes of a video's array, as stored; no more than a header is read where the form allows it."""
        with _errors_with_place(self.where(name)):
            return _two_axes(tuple(self._load(name).shape), self.where(name))

    def read(self, name: str) -> np.ndarray:
        """(L, D) or (D, L), as stored: float16, float32 or float64.

        Raises:
            ValueError: the file cannot be read, or holds no two-dimensional array of floating-point numbers.
        """
        with _errors_with_place(self.where(name)):
            array = self._load(name)
            if isinstance(array, torch.Tensor):
                array = (array.float() if array.dtype == torch.bfloat16 else array).detach().numpy()
            array = np.asarray(array)
        if array.dtype.kind != "f":
            raise ValueError(f"{self.where(name)} holds {array.dtype}; features are floating-point numbers.")
        return array.reshape(_two_axes(array.shape, self.where(name)))

    def where(self, name: str) -> str:
        """For messages."""
        return f"{self.path}, {name}"


@contextmanager
def _errors_with_place(where: str) -> Iterator[None]:
    """Damage that shows only when a part of a file is read: HDF5, numpy and zipfile each raise their own."""
    try:
        yield
    except ValueError as error:
        raise error if where.split(", ")[0] in str(error) else ValueError(f"{where}: {error}") from None
    except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{where} cannot be read ({_first_line(error)}); it is damaged.") from None


def open_feature_files(path: str | Path, *, key: str | None = None) -> FeatureFiles:
    """Find the videos of a folder or a file.

    Args:
        path: see the module's docstring.
        key: of the array, where a video has several.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: a form that is not known, or that cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"the features {path} do not exist; name a folder or a file.")
    if path.is_dir():
        return _open_folder(path, key=key)
    if path.suffix.lower() not in ONE_FOR_ALL:
        raise ValueError(
            f"{path} is no file of features that is known; one file must be {', '.join(ONE_FOR_ALL)}, and a folder may hold "
            f"{', '.join(ONE_PER_VIDEO)}, one per video. (Text tables: save them as .npy.)"
        )
    if _is_hdf5(path):
        return _open_hdf5(path, key=key)
    content = _load_file(path)
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{path} holds no dictionary of video -> features; one file must hold all videos.")
    return FeatureFiles(
        path=path,
        names=frozenset(content),
        _load=lambda name: _the_array(content[name], key=key, where=f"{path}, {name}"),
    )


def _open_folder(path: Path, *, key: str | None) -> FeatureFiles:
    files: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in ONE_PER_VIDEO and not file.name.startswith("."):
            if file.stem in files:
                raise ValueError(
                    f"{path} has two files of one video, {files[file.stem].name} and {file.name}; remove one of them."
                )
            files[file.stem] = file
    if not files:
        there = sorted({file.suffix or file.name for file in path.iterdir()})[:_NUM_NAMES_SHOWN]
        raise ValueError(
            f"{path} holds no feature files ({', '.join(ONE_PER_VIDEO)}); there are: {', '.join(there) or 'none'}."
        )

    def load(name: str) -> Any:
        file = files[name]
        if _is_hdf5(file):
            with _hdf5_file(file) as opened:
                return _the_array(opened, key=key, where=str(file))[...]
        return _the_array(_load_file(file), key=key, where=str(file))

    return FeatureFiles(path=path, names=frozenset(files), _load=load)


def _open_hdf5(path: Path, *, key: str | None) -> FeatureFiles:
    opened = _hdf5_file(path)  # stays open: videos are read one by one
    return FeatureFiles(
        path=path,
        names=frozenset(opened.keys()),
        _load=lambda name: _the_array(opened[name], key=key, where=f"{path}, {name}"),
    )


def _is_hdf5(path: Path) -> bool:
    return path.suffix.lower() in (".h5", ".hdf5")


def _hdf5_file(path: Path) -> Any:
    try:
        import h5py  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError:
        raise ValueError(
            f'{path}: reading HDF5 needs h5py, which is not installed; pip install "lofi-sola[hdf5]" or pip install h5py.'
        ) from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {_first_line(error)}") from None


def _load_file(path: Path) -> Any:
    """An array, a tensor, or a mapping of names to such."""
    try:
        if path.suffix.lower() in (".npy", ".npz"):
            return np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        with torch.serialization.safe_globals(_NUMPY_IN_PICKLES):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and zipfile raise whatever they like for a damaged file
        raise ValueError(
            f"{path} cannot be read ({_first_line(error)}); it is damaged, or holds other objects than arrays."
        ) from None


_NUMPY_IN_PICKLES: list[Any] = [
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    np.ndarray,
    np.dtype,
    np.dtypes.Float16DType,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
]
"""What a numpy array in a .pt file is made of."""


def _the_array(content: Any, *, key: str | None, where: str) -> Any:
    """The array itself, or the one that `key` (or the lack of others) tells in a dictionary or group."""
    if hasattr(content, "shape"):
        if key is not None:
            raise ValueError(f"{where} is an array by itself; leave the key ({key}) out.")
        return content
    if not hasattr(content, "keys"):
        raise ValueError(f"{where} is a {type(content).__name__}; an array of features is wanted.")
    names = sorted(content.keys())
    if key is None and len(names) == 1:
        key = names[0]
    if key is None or key not in names:
        wanted = "say which by its key" if key is None else f"there is no {key}"
        raise ValueError(f"{where} holds {_listed(names)}; {wanted}.")
    array = content[key]
    if not hasattr(array, "shape"):
        raise ValueError(f"{where}, {key} is a {type(array).__name__}; an array of features is wanted.")
    return array


def _two_axes(shape: tuple[int, ...], where: str) -> tuple[int, int]:
    """Without axes of one at the front (a batch) and at the back (pooled space)."""
    axes = list(shape)
    while len(axes) > 2 and axes[0] == 1:
        del axes[0]
    while len(axes) > 2 and axes[-1] == 1:
        del axes[-1]
    if len(axes) != 2 or 0 in axes:
        raise ValueError(f"{where} has the shape {tuple(shape)}; it must be (L, D) or (D, L).")
    return axes[0], axes[1]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return (
        ", ".join(names[:_NUM_NAMES_SHOWN]) + (", ..." if len(names) > _NUM_NAMES_SHOWN else "") or "nothing"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
