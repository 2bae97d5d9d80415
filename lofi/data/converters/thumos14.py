"""THUMOS14's temporal annotations (crcv.ucf.edu/THUMOS14): validation videos train, test videos test.

    annotations_val/CLASS_val.txt, annotations_test/CLASS_test.txt     lines `VIDEO START END`, in seconds; 20 classes and Ambiguous
    or one file in ActivityNet's form, as ActionFormer, OpenTAD and G-TAD have it

The text files know no durations. Every CliffDiving is a Diving too: two instances. Ambiguous stretches are no instances;
they are kept beside them, for evaluation under THUMOS14's own protocol.

Test videos in doubt: 0001292 has an Ambiguous stretch alone; 22 of the 29 instances of 0000270 lie after its end;
0001496 is said to be annotated wrongly (github.com/HYPJUDY/Decouple-SSAD, issue 23). What papers score is one of `TEST_SETS`.
"""

from itertools import pairwise
from pathlib import Path

from lofi.data.converters.activitynet import read_activitynet_form, segments_of
from lofi.data.converters.official import Official, OfficialVideo
from lofi.data.converters.source_files import positive_or_none, read_lines, seconds_of
from lofi.segments import LabelledSegment

AMBIGUOUS = "Ambiguous"
NUM_CLASSES = 20

TEST_SETS = {
    213: (),
    212: ("video_test_0001292",),
    211: ("video_test_0001292", "video_test_0000270"),
    210: ("video_test_0001292", "video_test_0000270", "video_test_0001496"),
}
"""Number of test videos -> those left out. 213: all annotated. 212: ActionFormer. 211: OpenTAD. 210: SSN, G-TAD, AFSD."""

SUBSETS = {"val": "training", "test": "test"}
OTHER_SUBSETS = {**SUBSETS, "train": "training", "training": "training", "validation": "training"}
"""In files of ActivityNet's form, in lower case; ActionFormer's has Validation and Test, G-TAD's train and test. OpenTAD's,
with training and validation, is told apart by its videos' names."""


def read_thumos14(source: Path, *, test_set: int = 212) -> Official:
    """Read the folder of text files (found below `source`, however deep), or a JSON file.

    Raises:
        ValueError: files are missing or wrong, or `test_set` is none of `TEST_SETS`.
    """
    if test_set not in TEST_SETS:
        allowed = ", ".join(map(str, TEST_SETS))
        raise ValueError(f"--test-set is {test_set}; it must be one of {allowed} test videos.")
    videos = read_class_files(source) if source.is_dir() else _read_json(source)
    left_out = [name for name in TEST_SETS[test_set] if name in videos]
    kept = {name: video for name, video in videos.items() if name not in left_out}
    classes = tuple(sorted({row.label for video in kept.values() for row in video.segments}))
    if len(classes) != NUM_CLASSES:
        raise ValueError(
            f"{source}: has {len(classes)} classes ({', '.join(classes)}); THUMOS14 has {NUM_CLASSES}."
        )
    return Official(videos=kept, classes=classes, notes=tuple(_notes(kept, left_out)))


def read_class_files(source: Path) -> dict[str, OfficialVideo]:
    """Videos from `CLASS_val.txt` and `CLASS_test.txt` below a folder. Raises ValueError with file and line."""
    segments: dict[str, list[LabelledSegment]] = {}
    ambiguous: dict[str, list[tuple[float, float]]] = {}
    subsets: dict[str, str] = {}
    for ending, subset in SUBSETS.items():
        paths = sorted(source.rglob(f"*_{ending}.txt"), key=lambda path: path.name)
        if not paths:
            raise ValueError(f"{source}: there is no file CLASS_{ending}.txt below it.")
        twice = [one for one, other in pairwise(paths) if one.name == other.name]
        if twice:
            raise ValueError(f"{source}: {twice[0].name} is there twice; give the folder that holds one.")
        for path in paths:
            label = path.stem.removesuffix(f"_{ending}")
            for video, start_sec, end_sec in read_instances(path):
                subsets[video] = subset
                if label == AMBIGUOUS:
                    ambiguous.setdefault(video, []).append((start_sec, end_sec))
                else:
                    row = LabelledSegment(start_sec=start_sec, end_sec=end_sec, label=label)
                    segments.setdefault(video, []).append(row)
    return {
        name: OfficialVideo(
            subset=subsets[name],
            segments=tuple(segments.get(name, ())),
            ambiguous=tuple(sorted(ambiguous.get(name, ()))),
        )
        for name in sorted(subsets)
    }


def read_instances(path: Path) -> list[tuple[str, float, float]]:
    """(video, start, end) from lines `VIDEO START END`, in seconds. Raises ValueError with file and line."""
    rows = []
    for where, words in read_lines(path):
        if len(words) != 3:
            raise ValueError(f"{where} is {' '.join(words)!r}; it must be VIDEO START END, in seconds.")
        rows.append((words[0], seconds_of(words[1], where=where), seconds_of(words[2], where=where)))
    return rows


def _read_json(path: Path) -> dict[str, OfficialVideo]:
    videos = {}
    for name, entry in read_activitynet_form(path).items():
        where = f'{path}: video "{name}"'
        subset = (
            "test" if name.startswith("video_test_") else OTHER_SUBSETS.get(str(entry.get("subset")).lower())
        )
        if subset is None:
            raise ValueError(
                f"{where}: the subset is {entry.get('subset')!r}; it must be one of {', '.join(OTHER_SUBSETS)}."
            )
        rows = segments_of(entry.get("annotations"), where=f"{where}: annotations")
        stretches = [(row.start_sec, row.end_sec) for row in rows if row.label == AMBIGUOUS]
        videos[name] = OfficialVideo(
            subset=subset,
            segments=tuple(row for row in rows if row.label != AMBIGUOUS),
            ambiguous=tuple(sorted(stretches)),
            duration_sec=positive_or_none(entry.get("duration")),
            fps=positive_or_none(entry.get("fps")),
        )
    return videos


def _notes(kept: dict[str, OfficialVideo], left_out: list[str]) -> list[str]:
    notes = []
    for subset in ("training", "test"):
        videos = [video for video in kept.values() if video.subset == subset]
        count = sum(len(video.ambiguous) for video in videos)
        if count:
            notes.append(
                f"{subset}: {count} Ambiguous stretches are no instances; launch/evaluate.py --protocol thumos14 heeds them"
            )
    if left_out:
        notes.append(f"left out of the test set (--test-set): {', '.join(left_out)}")
    in_doubt = [name for name in TEST_SETS[210] if name in kept]
    if in_doubt:
        notes.append(f"in the test set, and left out by some papers (--test-set): {', '.join(in_doubt)}")
    return notes
