"""Other tools' files: each form gives the same arrays; what cannot be read, and which axis is time."""

import numpy as np
import pytest
import torch

from lofi.data.feature_files import open_feature_files
from lofi.data.feature_layout import find_layout

ARRAYS = {
    "v_a": np.arange(15, dtype=np.float32).reshape(5, 3),
    "v_b": np.arange(21, dtype=np.float64).reshape(7, 3) / 7,
}
TENSORS = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}


def h5(path, **arrays):
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return path


def write_npy(folder):
    for name, array in ARRAYS.items():
        np.save(folder / f"{name}.npy", array)
    return folder, None


def write_npz(folder):
    for name, array in ARRAYS.items():
        np.savez(folder / f"{name}.npz", feats=array, other=np.zeros(2))
    return folder, "feats"


def write_pt(folder):
    for name, tensor in TENSORS.items():
        torch.save({"features": tensor}, folder / f"{name}.pt")
    return folder, None


def write_h5_folder(folder):
    for name, array in ARRAYS.items():
        h5(folder / f"{name}.h5", features=array)
    return folder, None


def write_mixed(folder):
    np.save(folder / "v_a.npy", ARRAYS["v_a"][None])  # a batch of one
    torch.save(TENSORS["v_b"][:, :, None, None], folder / "v_b.pth")  # pooled space
    (folder / "readme.txt").write_text("not a feature")
    return folder, None


def write_one_npz(folder):
    np.savez(folder / "all.npz", **ARRAYS)
    return folder / "all.npz", None


def write_one_pt(folder):
    torch.save(TENSORS, folder / "all.pt")
    return folder / "all.pt", None


def write_one_pt_of_numpy(folder):
    torch.save({name: {"rgb": array, "flow": array + 1} for name, array in ARRAYS.items()}, folder / "all.pt")
    return folder / "all.pt", "rgb"


def write_one_h5(folder):
    return h5(folder / "all.h5", **ARRAYS), None


def write_one_h5_of_groups(folder):
    return h5(folder / "all.hdf5", **{f"{name}/c3d_features": array for name, array in ARRAYS.items()}), None


FORMS = [
    write_npy,
    write_npz,
    write_pt,
    write_h5_folder,
    write_mixed,
    write_one_npz,
    write_one_pt,
    write_one_pt_of_numpy,
    write_one_h5,
    write_one_h5_of_groups,
]


@pytest.mark.parametrize("write", FORMS, ids=lambda write: write.__name__)
def test_every_form_gives_the_same_arrays(write, tmp_path):
    path, key = write(tmp_path)
    files = open_feature_files(path, key=key)
    assert files.names == {"v_a", "v_b"}
    for name, array in ARRAYS.items():
        assert files.shape(name) == array.shape
        np.testing.assert_array_equal(files.read(name), array)


class Harmful:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    torch.save({"v_a": Harmful()}, tmp_path / "all.pt")
    with pytest.raises(ValueError, match=r"all\.pt cannot be read .*or holds other objects than arrays"):
        open_feature_files(tmp_path / "all.pt")
    np.save(tmp_path / "v_a.npy", np.array([Harmful()], dtype=object))
    with pytest.raises(ValueError, match=r"v_a\.npy cannot be read"):
        open_feature_files(tmp_path).read("v_a")
    assert "this must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".h5"])
def test_a_damaged_file_is_named_when_its_video_is_read(suffix, tmp_path):
    (tmp_path / f"v_a{suffix}").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=rf"v_a\{suffix} cannot be read"):
        open_feature_files(tmp_path).read("v_a")


def test_several_arrays_need_a_key_that_is_there(tmp_path):
    path, _ = write_one_pt_of_numpy(tmp_path)
    for key, match in ((None, "holds flow, rgb; say which"), ("rbg", "there is no rbg")):
        with pytest.raises(ValueError, match=match):
            open_feature_files(path, key=key).read("v_a")
    path, _ = write_one_npz(tmp_path)
    with pytest.raises(ValueError, match=r"is an array by itself; leave the key \(rgb\) out"):
        open_feature_files(path, key="rgb").read("v_a")


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((2, 5, 3), np.float32), r"v_a has the shape \(2, 5, 3\); it must be \(L, D\) or \(D, L\)"),
        (np.zeros((0, 3), np.float32), r"has the shape \(0, 3\)"),
        (np.zeros((5, 3), np.int64), "v_a holds int64; features are floating-point"),
    ],
)
def test_what_is_no_sequence_of_features_is_refused(array, match, tmp_path):
    np.save(tmp_path / "v_a.npy", array)
    with pytest.raises(ValueError, match=match):
        open_feature_files(tmp_path).read("v_a")


def test_a_source_that_is_nothing_known_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere do not exist"):
        open_feature_files(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no feature files .*there are: none"):
        open_feature_files(tmp_path)
    (tmp_path / "all.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"all\.csv is no file of features that is known"):
        open_feature_files(tmp_path / "all.csv")
    torch.save([torch.zeros(5, 3)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list\.pt holds no dictionary"):
        open_feature_files(tmp_path / "list.pt")
    for suffix in (".npy", ".npz"):
        (tmp_path / f"v_a{suffix}").touch()
    with pytest.raises(ValueError, match=r"two files of one video, v_a\.npy and v_a\.npz"):
        open_feature_files(tmp_path)


def test_hdf5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    path, _ = write_one_h5(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(
        ValueError, match=r'all\.h5: reading HDF5 needs h5py.*pip install "lofi-sola\[hdf5\]"'
    ):
        open_feature_files(path)


def test_the_axis_that_agrees_is_the_width():
    shapes = [(length, 3) for length in range(5, 25)]
    found = find_layout(shapes)
    assert (found.layout, found.width) == ("LD", 3)
    assert found.reason == "LD, found: 100% of the files are 3 wide, their lengths are 5 to 24"
    found = find_layout([shape[::-1] for shape in shapes])
    assert (found.layout, found.width) == ("DL", 3)
    assert find_layout([*shapes, (7, 4)]).width == 3
    assert find_layout([(6, 3)] * 9, width=6).layout == "DL"


@pytest.mark.parametrize(
    "shapes", [[(5, 3)], [(5, 3)] * 20, [(5, 3)] * 19 + [(5, 4)], [(n, n + 1) for n in range(9)]]
)
def test_shapes_that_do_not_tell_are_refused_with_what_to_say(shapes):
    with pytest.raises(
        ValueError, match=r"do not tell which axis is time .*say the layout \(--layout\): LD where"
    ):
        find_layout(shapes)
    assert find_layout(shapes, layout="DL").layout == "DL"
