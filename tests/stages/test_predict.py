"""Prediction on any video: as evaluation predicts it, whatever made the features; and what is left behind."""

import csv
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import SIDE, recipe_file, tiny_overrides

from lofi.config.load import load_extraction_recipe
from lofi.config.objectives import OWN_PARTS
from lofi.data.reading_process import ReadingProcess
from lofi.stages.evaluate import evaluate_run
from lofi.stages.extract import run_extraction
from lofi.stages.predict import PredictOptions, run_prediction
from sola import PARTS as SOLA
from sola.apply import apply_adapter

PARTS = OWN_PARTS.joined(SOLA)
SLIDING = {"grid__mode": "sliding", "grid__window_sec": 2.5}


@pytest.fixture(scope="module")
def predict(benchmark, tmp_path_factory):
    """A function: a run and options -> `Predicted` of the benchmark's validation videos."""
    folder = tmp_path_factory.mktemp("predicted")
    count = 0

    def run(path, **options):
        nonlocal count
        count += 1
        values = {
            "run": path,
            "videos": [str(benchmark.videos)],
            "output": folder / str(count),
            "pages": False,
            "parts": PARTS,
            "device": "cpu",
        }
        return run_prediction(PredictOptions(**{**values, **options}))

    return run


def assert_same_detections(found, wanted):
    """Times and scores to float tolerance, class by class: equal scores may come in another order."""
    assert set(wanted) <= set(found)
    for video, rows in wanted.items():
        assert len(rows) == len(found[video])
        for label in {row.label for row in rows}:
            there, here = (
                np.array(sorted((r.score, r.start_sec, r.end_sec) for r in each if r.label == label))
                for each in (rows, found[video])
            )
            np.testing.assert_allclose(here[:, 0], there[:, 0], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(here.mean(axis=0), there.mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("grid", [{}, SLIDING], ids=["rescale", "sliding"])
def test_a_detector_trained_from_frames_predicts_as_evaluation_does(trained, benchmark, predict, grid):
    run = trained("lofi_s_tiny_actionformer", **grid)
    evaluated = evaluate_run(run).predictions
    predicted = predict(run, encoder_batch=3, annotations=benchmark.annotations)
    assert sum(map(len, evaluated.values())) > 10
    assert_same_detections(predicted.predictions, evaluated)


@pytest.fixture(scope="module")
def sliding_features(benchmark, trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("sliding") / "features"
    overrides = tiny_overrides(
        "extract_tiny",
        benchmark,
        output,
        encoder__weights=trained("tac_tiny"),
        **SLIDING,
        extraction__dtype="float16",
    )
    return run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), overrides)).path


def test_a_head_on_features_predicts_with_the_encoder_that_made_them(trained, extracted, predict):
    run = trained("frozen_tiny_actionformer", data__features=extracted)
    assert_same_detections(predict(run).predictions, evaluate_run(run).predictions)


def test_a_head_on_standardized_features_predicts_with_its_moments(trained, extracted, benchmark, predict):
    run = trained("frozen_tiny_actionformer", data__features=extracted, data__standardize_features=True)
    evaluated = evaluate_run(run).predictions
    assert sum(map(len, evaluated.values())) > 10
    assert_same_detections(predict(run, annotations=benchmark.annotations).predictions, evaluated)


def test_windows_over_dense_half_precision_features_are_cut_as_in_evaluation(
    trained, sliding_features, predict
):
    run = trained("frozen_tiny_actionformer", data__features=sliding_features, **SLIDING)
    evaluated = evaluate_run(run).predictions
    assert_same_detections(predict(run, encoder_batch=5).predictions, evaluated)


@pytest.fixture(scope="module")
def adapted_run(trained, extracted, tmp_path_factory):
    """A head on features that two adapters changed, one after the other."""
    folder = tmp_path_factory.mktemp("adapted")
    adapter = trained("sola_tiny", data__features=extracted, optimizer__lr=0.1)
    once = apply_adapter(features=extracted, run=adapter, output=folder / "once").path
    twice = apply_adapter(features=once, run=adapter, output=folder / "twice").path
    return trained("frozen_tiny_actionformer", data__features=twice)


def test_adapters_that_changed_the_features_are_applied_again(adapted_run, predict):
    evaluated = evaluate_run(adapted_run, parts=PARTS).predictions
    assert_same_detections(predict(adapted_run).predictions, evaluated)


@pytest.fixture
def head_run(trained, extracted, tmp_path):
    """A copy of a run and of the features that it was trained on, to be spoilt."""
    run = shutil.copytree(trained("frozen_tiny_actionformer", data__features=extracted), tmp_path / "run")
    features = shutil.copytree(extracted, tmp_path / "features")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(extracted), str(features)))
    return run, features


def test_an_encoder_that_was_moved_is_named_and_must_be_the_same(head_run, trained, predict):
    run, features = head_run
    manifest = json.loads((features / "manifest.json").read_text())
    manifest["encoder"]["weights"] = "runs/gone"
    (features / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"runs/gone does not exist.* --encoder RUN_OR_FILE"):
        predict(run)
    with pytest.raises(ValueError, match=r"had weights of the hash \w+\.\.\., those of .* have \w+\.\.\."):
        predict(run, encoder=str(trained("lofi_s_tiny_actionformer")))
    assert predict(run, encoder=str(trained("tac_tiny"))).predictions


def test_an_extraction_recipe_can_name_the_encoder(head_run, trained, benchmark, predict, tmp_path):
    from omegaconf import OmegaConf

    run, _ = head_run
    overrides = tiny_overrides(
        "extract_tiny", benchmark, tmp_path / "x", encoder__weights=trained("tac_tiny")
    )
    recipe = tmp_path / "extract.yaml"
    merged = OmegaConf.merge(OmegaConf.load(recipe_file("extract_tiny")), OmegaConf.from_dotlist(overrides))
    recipe.write_text(OmegaConf.to_yaml(merged))
    assert predict(run, encoder=str(recipe)).predictions


def test_features_from_elsewhere_are_refused(head_run, predict):
    run, features = head_run
    manifest = json.loads((features / "manifest.json").read_text())
    manifest |= {"encoder": {"name": "i3d"}, "weights_sha256": None}
    (features / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="made by i3d, outside this program"):
        predict(run)


def test_options_without_effect_are_refused(trained, extracted, predict):
    from_frames = trained("lofi_s_tiny_actionformer")
    head = trained("frozen_tiny_actionformer", data__features=extracted)
    with pytest.raises(ValueError, match="--encoder x has no effect: .* trained from frames"):
        predict(from_frames, encoder="x")
    with pytest.raises(ValueError, match="--adapter x has no effect"):
        predict(head, adapter="x")
    with pytest.raises(ValueError, match="--top-k is 201, but .* keeps 200"):
        predict(from_frames, top_k=201)
    with pytest.raises(ValueError, match="objective tac has no detector"):
        predict(trained("tac_tiny"))


def test_a_second_call_predicts_only_what_is_new(trained, benchmark, predict, tmp_path):
    run, output = trained("lofi_s_tiny_actionformer"), tmp_path / "out"
    videos = sorted(benchmark.videos.glob("*.mp4"))
    assert predict(run, videos=[str(videos[0])], output=output).num_new == 1
    copy = shutil.copy(videos[1], tmp_path / "another.mp4")
    second = predict(run, videos=[str(videos[0]), str(copy)], output=output)
    assert (second.num_new, len(second.predictions)) == (1, 2)
    shutil.copy(videos[2], copy)
    assert predict(run, videos=[str(copy)], output=output).num_new == 1  # another file of that name
    assert predict(run, videos=[str(copy)], output=output, restart=True).predictions.keys() == {"another"}
    with pytest.raises(ValueError, match=r"made otherwise: weights_sha256 .* --restart"):
        predict(trained("lofi_t_tiny_actionformer"), videos=[str(copy)], output=output)


def test_what_is_written_is_chosen_without_predicting_again(trained, benchmark, predict, tmp_path):
    run, output = trained("lofi_s_tiny_actionformer"), tmp_path / "out"
    everything = predict(run, output=output)
    video, rows = next((video, rows) for video, rows in everything.predictions.items() if len(rows) > 3)
    some = predict(run, output=output, top_k=3, min_score=rows[1].score)
    assert some.num_new == 0
    assert some.predictions[video] == [row for row in rows if row.score >= rows[1].score][:3]
    written = json.loads((output / "predictions.json").read_text())["results"]
    assert [row["score"] for row in written[video]] == [row.score for row in some.predictions[video]]
    with (output / "predictions.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == sum(map(len, some.predictions.values()))
    assert list(lines[0]) == ["video", "start", "end", "label", "score"]


def test_a_video_that_fails_is_named_and_the_others_go_on(trained, benchmark, predict, tmp_path, capsys):
    folder = tmp_path / "clips"
    folder.mkdir()
    shutil.copy(next(benchmark.videos.glob("*.mp4")), folder / "good.mp4")
    (folder / "bad.mp4").write_bytes(b"no video at all" * 99)
    run, output = trained("lofi_s_tiny_actionformer"), tmp_path / "out"
    predicted = predict(run, videos=[str(folder)], output=output, pages=True)
    assert predicted.predictions.keys() == {"good"}
    assert predicted.failures.keys() == {"bad"}
    assert "failed: bad: it is not a video file" in capsys.readouterr().out
    index = (output / "index.html").read_text()
    assert "1 video failed" in index
    assert predicted.failures["bad"] in index


def test_a_video_that_fails_while_it_is_read_is_named_with_its_file_once(
    trained, benchmark, predict, tmp_path, capsys
):
    content = bytearray(next(benchmark.videos.glob("*.mp4")).read_bytes())
    begin = content.index(b"mdat") + 4
    middle = begin + (content.index(b"moov") - begin) // 2
    content[middle : middle + 4000] = bytes(4000)
    video = tmp_path / "torn.mp4"
    video.write_bytes(content)
    assert predict(trained("lofi_s_tiny_actionformer"), videos=[str(video)]).failures.keys() == {"torn"}
    line = next(line for line in capsys.readouterr().out.splitlines() if "failed: torn: " in line)
    assert line.count(str(video)) == 1


def test_one_process_reads_all_videos_and_opens_each_once(trained, benchmark, predict, tmp_path, monkeypatch):
    asked, ask = [], ReadingProcess._ask

    def spy(self, path, kind, *rest):
        answer = ask(self, path, kind, *rest)
        asked.append((self.pid, kind))
        return answer

    monkeypatch.setattr(ReadingProcess, "_ask", spy)
    predicted = predict(trained("lofi_s_tiny_actionformer"), output=tmp_path / "out", pages=True, workers=0)
    assert predicted.num_new > 1
    assert [kind for _, kind in asked].count("open") == predicted.num_new
    assert len({pid for pid, _ in asked}) == 1


def test_a_copied_video_is_copied_again_when_it_was_replaced(trained, benchmark, predict, tmp_path):
    run, output, video = trained("lofi_s_tiny_actionformer"), tmp_path / "out", tmp_path / "a.mp4"
    content = next(benchmark.videos.glob("*.mp4")).read_bytes()
    for number, each in enumerate([content, content.replace(b"VideoHandler", b"Some handler")]):
        video.write_bytes(each)
        os.utime(video, (10**9 - 60 * number,) * 2)  # the later one is no newer
        predict(run, videos=[str(video)], output=output, pages=True, copy_videos=True)
    assert [copy.read_bytes() for copy in (output / "videos").rglob("*.mp4")] == [each]
    assert each != content


def test_pages_are_written_once_and_again_when_they_would_differ(trained, benchmark, predict, tmp_path):
    run, output = trained("lofi_s_tiny_actionformer"), tmp_path / "out"
    video = next(benchmark.videos.glob("*.mp4"))
    options = {"videos": [str(video)], "output": output, "pages": True}
    predict(run, **options)
    page = output / "pages" / f"{video.stem}.html"
    first = page.stat().st_mtime_ns
    predict(run, **options)
    assert page.stat().st_mtime_ns == first
    predict(run, **options, annotations=benchmark.annotations, copy_videos=True)
    text = page.read_text()
    assert page.stat().st_mtime_ns > first
    assert "annotated" in text
    copies = list((output / "videos").rglob("*.mp4"))
    assert [copy.read_bytes() for copy in copies] == [video.read_bytes()]
    assert f'<source src="../{copies[0].relative_to(output)}">' in text
    assert "file:" not in text
    assert text.count("data:image/jpeg;base64,") == min(48, text.count('class="card"'))


def test_decoding_in_other_processes_finds_the_same(trained, benchmark, predict):
    run = trained("lofi_s_tiny_actionformer")
    videos = [str(next(benchmark.videos.glob("*.mp4")))]
    here, there = (
        predict(run, videos=videos, workers=workers, encoder_batch=4).predictions for workers in (0, 1)
    )
    assert here == there


def test_the_recipe_needs_neither_annotations_nor_its_videos(trained, benchmark, predict, tmp_path):
    run = shutil.copytree(trained("lofi_s_tiny_actionformer"), tmp_path / "run")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(benchmark.data), "/nowhere"))
    assert predict(run, videos=[str(next(benchmark.videos.glob("*.mp4")))]).predictions


def test_side_is_the_recipes_not_the_videos(trained, predict, tmp_path):
    """A video of another size and rate than those of training."""
    from lofi.data.synthetic import SyntheticConfig, write_benchmark

    config = SyntheticConfig(videos=2, trimmed_videos=2, classes=2, size=2 * SIDE, fps=12.0, duration_sec=4.0)
    paths = write_benchmark(replace(config, clip_sec=0.5), tmp_path)
    video = next(paths.untrimmed_videos.glob("*.mp4"))
    assert predict(trained("lofi_s_tiny_actionformer"), videos=[str(video)]).predictions[video.stem]
