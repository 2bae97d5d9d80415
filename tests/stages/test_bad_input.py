"""Bad data, weights and sizes end in one message before any step; what goes wrong in mid-run is named."""

import json
import shutil

import pytest
from tiny_runs import read_steps, recipe_file, tiny_overrides

from lofi.config.load import RecipeError, load_extraction_recipe, load_recipe
from lofi.data.decode import DecodeError
from lofi.engine.checkpoint import list_checkpoints, newest_weights
from lofi.engine.loop import NonFiniteError
from lofi.stages.extract import run_extraction
from lofi.stages.train import run_training

NAME = "lofi_s_tiny_actionformer"


@pytest.fixture
def refuse(benchmark, tmp_path):
    """A function: training with these changes must be refused, before there is a run directory; gives the message."""

    def check(error=ValueError, name=NAME, **changes):
        output = tmp_path / "run"
        recipe = load_recipe(recipe_file(name), tiny_overrides(name, benchmark, output, **changes))
        with pytest.raises(error) as caught:
            run_training(recipe)
        assert not output.exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return check


@pytest.fixture
def annotate(benchmark, tmp_path):
    """A function: the benchmark's annotations, changed by a function -> the new file."""

    def write(change):
        document = json.loads(benchmark.annotations.read_text())
        change(document)
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(document))
        return path

    return write


@pytest.fixture
def damaged(benchmark, tmp_path):
    """A copy of the videos, one file of which cannot be decoded; (folder, name of the video)."""
    folder = tmp_path / "videos"
    shutil.copytree(benchmark.videos, folder)
    name = "video_training_0002"
    (folder / f"{name}.mp4").write_bytes(b"no video at all" * 99)
    return folder, name


def first_video(document, subset="training"):
    return next(video for video in document["database"].values() if video["subset"] == subset)


def test_a_missing_video_is_named(refuse, benchmark, tmp_path):
    folder = tmp_path / "some_videos"
    shutil.copytree(benchmark.videos, folder)
    (folder / "video_training_0001.mp4").unlink()
    message = refuse(FileNotFoundError, data__videos=folder)
    assert message.startswith(f"1 of 6 videos are not in {folder}: video_training_0001.mp4.")


def test_a_missing_validation_video_is_named_before_training(refuse, benchmark, tmp_path):
    folder = tmp_path / "some_videos"
    shutil.copytree(benchmark.videos, folder)
    (folder / "video_validation_0003.mp4").unlink()
    message = refuse(FileNotFoundError, data__videos=folder)
    assert message.startswith(f"1 of 5 videos are not in {folder}: video_validation_0003.mp4.")


def test_a_missing_folder_of_videos_is_named(refuse, tmp_path):
    assert "nowhere does not exist" in refuse(FileNotFoundError, data__videos=tmp_path / "nowhere")


def test_a_missing_annotation_file_is_named(refuse, tmp_path):
    path = tmp_path / "nothing.json"
    assert refuse(data__annotations=path) == f"{path}: there is no such annotation file."


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"segment": [2.0, 2.0]}, r'"segment" is [2, 2]; its end must come after its start.'),
        ({"segment": [2.5, 1.0]}, r'"segment" is [2.5, 1]; its end must come after its start.'),
        (
            {"segment": [1.0, 99.0]},
            r'"segment" is [1, 99], outside the video of 4 s; it must lie between 0 and',
        ),
        (
            {"label": "shaek"},
            r'the label "shaek" is unknown (did you mean "shake"?); "classes" allows shake, bounce.',
        ),
    ],
)
def test_a_wrong_annotation_is_named_with_file_video_and_key(change, expected, refuse, annotate):
    path = annotate(lambda document: first_video(document)["annotations"][0].update(change))
    message = refuse(data__annotations=path)
    assert message.startswith(f'{path}: video "video_training_0000": annotations[0]: ')
    assert expected in message


@pytest.mark.parametrize("key", ["training_subset", "validation_subset"])
def test_an_empty_subset_is_named_with_those_that_there_are(key, refuse):
    message = refuse(**{f"data__{key}": "test"})
    assert 'no video has subset "test"' in message
    assert "the file has: training (6 videos), validation (5 videos)" in message


def test_a_training_subset_without_any_segment_is_refused(refuse, annotate):
    def clear(document):
        for video in document["database"].values():
            if video["subset"] == "training":
                video["annotations"] = []

    message = refuse(data__annotations=annotate(clear))
    assert "none of the 6 training videos has an annotated segment" in message


def test_a_validation_subset_without_any_segment_is_refused_before_training(refuse, annotate):
    def clear(document):
        for video in document["database"].values():
            if video["subset"] == "validation":
                video["annotations"] = []

    path = annotate(clear)
    message = refuse(data__annotations=path)
    assert message.startswith(f"{path}: none of the 5 videos of subset validation has an annotated segment")
    assert "evaluation: null" in message


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (None, "scores.json: cannot read the video scores"),
        (
            {"class": ["shake", "bounce"], "results": {"video_validation_0000": [0.5, 0.5]}},
            "video_validation_0001",
        ),
    ],
)
def test_video_scores_that_evaluation_would_miss_are_named_before_training(
    scores, expected, refuse, tmp_path
):
    path = tmp_path / "scores.json"
    if scores is not None:
        path.write_text(json.dumps(scores))
    assert expected in refuse(postprocess__video_scores=path)


def test_weights_that_are_not_there_are_named(refuse, tmp_path):
    message = refuse(encoder__weights=tmp_path / "nowhere")
    assert message.startswith(
        f"encoder.weights: {tmp_path / 'nowhere'} does not exist; it must be a file, a run"
    )


def test_weights_that_are_cut_off_are_named(refuse, trained, tmp_path):
    path = tmp_path / "weights.safetensors"
    content = newest_weights(trained("tac_tiny") / "checkpoints").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    message = refuse(encoder__weights=path)
    assert message.startswith(f"encoder.weights: {path} cannot be read (")
    assert message.endswith("; it is damaged or cut off.")


def test_weights_of_another_encoder_are_named(refuse, trained):
    message = refuse(encoder__weights=trained("tac_tiny"), encoder__channels=[3, 4, 5])
    assert "does not fit Tiny. of another shape: " in message


def test_a_run_without_checkpoint_gives_no_weights(refuse, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"the directory {empty} has no weights.safetensors" in refuse(encoder__weights=empty)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fidelity__height": 8}, "fidelity 8x4x8x20 is too small for tiny"),
        ({"fidelity__width": 17}, "fidelity 8x4x10x8 is too small for tiny"),
    ],
)
def test_a_fidelity_that_the_encoder_cannot_take_is_refused_with_the_recipe(
    changes, expected, benchmark, tmp_path
):
    overrides = tiny_overrides(NAME, benchmark, tmp_path / "run", **changes)
    with pytest.raises(RecipeError, match=f"{expected}.*nearest usable: height "):
        load_recipe(recipe_file(NAME), overrides)


def test_a_batch_that_the_data_cannot_fill_is_refused(refuse):
    message = refuse(train__batch_size=7)
    assert message.startswith("train.batch_size: the batch size 7 is larger than the 6 training windows")


def test_accumulation_that_would_lose_gradients_at_a_checkpoint_is_refused(refuse):
    message = refuse(deepspeed__gradient_accumulation_steps=2)
    assert "deepspeed.gradient_accumulation_steps is 2 but the steps of an epoch are 3" in message
    message = refuse(deepspeed__gradient_accumulation_steps=3, train__checkpoint_every_steps=2)
    assert "train.checkpoint_every_steps are 2" in message


def test_precisions_that_train_wrongly_in_silence_are_refused(refuse):
    assert refuse(train__precision="bf16").startswith("train.precision: bf16 on a CPU gives wrong gradients")
    message = refuse(train__precision="fp16", deepspeed__zero_optimization__stage=1)
    assert message.startswith("train.precision: fp16 at ZeRO stage 1 clips the scaled gradients")


def test_a_feature_directory_that_is_not_there_is_named(refuse, tmp_path):
    path = tmp_path / "features"
    message = refuse(FileNotFoundError, name="frozen_tiny_actionformer", data__features=path)
    assert message == f"the feature directory {path} does not exist; extract features first."


def test_features_of_a_missing_video_are_named(refuse, extracted, tmp_path):
    path = tmp_path / "features"
    shutil.copytree(extracted, path)
    (path / "video_training_0003.npy").unlink()
    message = refuse(FileNotFoundError, name="frozen_tiny_actionformer", data__features=path)
    assert f"1 of 6 videos have no features in {path}: video_training_0003" in message


def test_features_of_a_missing_validation_video_are_named_before_training(refuse, extracted, tmp_path):
    path = tmp_path / "features"
    shutil.copytree(extracted, path)
    (path / "video_validation_0004.npy").unlink()
    message = refuse(FileNotFoundError, name="frozen_tiny_actionformer", data__features=path)
    assert f"1 of 5 videos have no features in {path}: video_validation_0004" in message


def test_a_video_that_cannot_be_decoded_stops_the_run_by_name(damaged, benchmark, tmp_path):
    folder, name = damaged
    overrides = tiny_overrides(NAME, benchmark, tmp_path / "run", data__videos=folder)
    with pytest.raises(DecodeError, match=rf"^{name} cannot be decoded: .*{name}\.mp4\)$"):
        run_training(load_recipe(recipe_file(NAME), overrides))
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_video_that_cannot_be_decoded_is_skipped_and_counted_where_the_recipe_says_so(
    damaged, benchmark, tmp_path, capsys
):
    folder, name = damaged
    changes = {"data__videos": folder, "data__on_decode_error": "skip"}
    overrides = tiny_overrides(NAME, benchmark, tmp_path / "run", **changes)
    run = run_training(load_recipe(recipe_file(NAME), overrides))
    skipped = json.loads(run.summary.read_text())["skipped_videos"]
    assert list(skipped) == [name]
    assert skipped[name].startswith("it is not a video file")
    assert len(read_steps(run.path)) == 6
    assert "1 videos could not be decoded and were skipped" in capsys.readouterr().out


def test_a_skipped_validation_video_has_no_detections_and_is_counted(damaged, benchmark, tmp_path):
    folder, _ = damaged
    name = "video_validation_0001"
    (folder / "video_training_0002.mp4").write_bytes((folder / "video_training_0000.mp4").read_bytes())
    (folder / f"{name}.mp4").write_bytes(b"")
    changes = {"data__videos": folder, "data__on_decode_error": "skip"}
    overrides = tiny_overrides(NAME, benchmark, tmp_path / "run", **changes)
    run = run_training(load_recipe(recipe_file(NAME), overrides))
    assert list(json.loads(run.summary.read_text())["skipped_videos"]) == [name]
    assert json.loads(run.predictions.read_text())["results"][name] == []


def test_a_batch_of_skipped_videos_alone_gives_a_finite_loss(damaged, benchmark, tmp_path):
    folder, _ = damaged
    for path in folder.glob("video_training_*"):
        path.write_bytes(b"")
    changes = {"data__videos": folder, "data__on_decode_error": "skip", "evaluation": None}
    overrides = tiny_overrides(NAME, benchmark, tmp_path / "run", **changes)
    run = run_training(load_recipe(recipe_file(NAME), overrides))
    assert len(json.loads(run.summary.read_text())["skipped_videos"]) == 6
    assert [step["classification"] for step in read_steps(run.path)] == [0.0] * 6


@pytest.mark.parametrize("stage", [0, 1])
def test_a_loss_that_is_not_finite_stops_with_step_videos_and_the_last_good_checkpoint(
    stage, benchmark, tmp_path
):
    changes = {
        "optimizer__name": "sgd",
        "optimizer__lr": 1e30,
        "optimizer__encoder_lr": 1e30,
        "schedule": "constant",
        "train__gradient_clipping": 0,
        "train__checkpoint_every_steps": 1,
        "deepspeed__zero_optimization__stage": stage,
    }
    overrides = tiny_overrides(NAME, benchmark, tmp_path / "run", **changes)
    with pytest.raises(NonFiniteError, match=r"^step \d \(epoch \d\): the (loss|gradient)") as caught:
        run_training(load_recipe(recipe_file(NAME), overrides))
    checkpoints = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert checkpoints
    assert f"Last good checkpoint: {checkpoints[-1]}. " in str(caught.value)
    assert "Videos of the batch: video_training_000" in str(caught.value)
    assert str(caught.value).count("video_training_") == 2


def test_extraction_goes_on_after_a_video_that_cannot_be_decoded_and_tells(
    damaged, benchmark, trained, tmp_path
):
    folder, name = damaged
    changes = {
        "data__videos": folder,
        "data__on_decode_error": "skip",
        "encoder__weights": trained("tac_tiny"),
    }
    overrides = tiny_overrides("extract_tiny", benchmark, tmp_path / "features", **changes)
    done = run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), overrides))
    assert done.num_videos == 10
    assert list(done.failures) == [name]
    assert not (done.path / f"{name}.npy").exists()


def test_extraction_into_features_made_otherwise_is_refused(extracted, benchmark):
    overrides = tiny_overrides("extract_tiny", benchmark, extracted)
    with pytest.raises(ValueError, match=r"holds features that were made otherwise: .*weights_sha256"):
        run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), overrides))
