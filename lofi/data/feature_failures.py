"""failures.json of a feature directory, beside its manifest and not in it: of which videos there can be no features, and why. `{VIDEO: REASON}`.

Those that an extraction could not decode and was told to skip, and those that were wrong in other tools' files.
"""

import json
from collections.abc import Iterable, Mapping

from lofi.data.feature_store import FeatureDirectory
from lofi.files import write_json

FAILURES_NAME = "failures.json"


def record_failures(directory: FeatureDirectory, failures: Mapping[str, str]) -> None:
    """Add videos without features (video -> reason); a video whose features are there now is taken out."""
    file = directory.path / FAILURES_NAME
    known = {**_read_failures(directory), **failures}
    left = {video: reason for video, reason in sorted(known.items()) if not directory.file(video).is_file()}
    if left or file.is_file():
        write_json(file, left)


def failed_videos(directory: FeatureDirectory) -> dict[str, str]:
    """Video -> reason, of those that have no features because making them failed.

    Raises:
        ValueError: a failures.json that is wrong.
    """
    if directory.parts:
        return {video: reason for part in directory.parts for video, reason in failed_videos(part).items()}
    failures = _read_failures(directory)
    return {video: reason for video, reason in failures.items() if not directory.file(video).is_file()}


def refuse_failed_videos(directory: FeatureDirectory, videos: Iterable[str]) -> None:
    """Raise ValueError where some of the videos have no features because making them failed; names one and its reason."""
    known = failed_videos(directory)
    failed = [video for video in videos if video in known]
    if failed:
        further = f" ({len(failed) - 1} further videos likewise.)" if len(failed) > 1 else ""
        raise ValueError(
            f"{directory.path / FAILURES_NAME}: {failed[0]} has no features, since making them failed: {known[failed[0]]} "
            "Repair the video and extract again, remove it from the annotations, or set data.on_decode_error: skip."
            f"{further}"
        )


def _read_failures(directory: FeatureDirectory) -> dict[str, str]:
    file = directory.path / FAILURES_NAME
    try:
        failures = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{file}: not JSON: {error}. Remove it and extract again.") from None
    if not isinstance(failures, dict) or not all(isinstance(reason, str) for reason in failures.values()):
        raise ValueError(f"{file}: it must be an object of video -> reason. Remove it and extract again.")
    return failures
