"""The page and the figures of an evaluation: they stand alone, hold the numbers, and stay readable at 200 classes."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from lofi.report.evaluation_page import draw_figures, write_evaluation_page
from lofi.report.evaluation_plots import class_curve, plot_class_ap
from lofi.report.svg_style import standalone_svg

TIOUS = ("0.30", "0.50", "0.70")
TYPES = ("double_detection", "wrong_label", "localization", "confusion", "background")
ALL_FIGURES = {
    "map_at_tiou",
    "precision_recall",
    "average_recall",
    "class_ap",
    "false_positives",
    "gains",
    "sensitivity",
    "missed",
}


def evaluation(names):
    """An evaluation.json with every part, of classes of these names."""
    generator = np.random.default_rng(5)
    ap = {name: dict(zip(TIOUS, sorted(generator.uniform(size=3))[::-1], strict=True)) for name in names}
    points = [0.0, 0.5, 1.0]
    band = {"true_positive": 0.5, **dict.fromkeys(TYPES, 0.1)}
    bucket = {
        "name": "XS",
        "above": None,
        "up_to": 0.2,
        "instances": 3,
        "average_mAP_N": 0.25,
        "missed": None,
    }
    last = {**bucket, "name": "S", "above": 0.2, "up_to": None, "missed": 0.5}
    return {
        "mAP": {"0.30": 0.5, "0.50": 0.4, "0.70": 0.1},
        "average_mAP": 0.3333,
        "AR": {"1": 0.1, "100": 0.9},
        "AR_at_tIoU": {"0.50": {"1": 0.1, "100": 0.9}},
        "AUC": 0.6,
        "recall_at_kx": {"1": {"0.30": 0.71, "0.50": 0.62, "0.70": 0.53}},
        "protocol": "default",
        "counts": {"predictions": 7, "unknown_labels": 2, "videos": 4, "instances": 9, "classes": len(names)},
        "source": {"dataset": "thumos14", "subset": "test"},
        "AP": ap,
        "instances": dict.fromkeys(names, 3),
        "bootstrap": {
            "average_mAP": [0.3111, 0.3555],
            "mAP": {tiou: [0.1, 0.6] for tiou in TIOUS},
            "confidence": 0.95,
            "samples": 10,
            "seed": 3,
        },
        "against": {
            "predictions": "other.json",
            "average_mAP": 0.3,
            "mAP": dict.fromkeys(TIOUS, 0.3),
            "difference": 0.0333,
            "interval": [0.01, 0.06],
            "p_value": 0.02,
            "confidence": 0.95,
            "samples": 10,
        },
        "errors": {
            "false_positives": {
                "band_shares": [band, None],
                "best_shares": [band, band],
                "gains": dict.fromkeys(TYPES, 0.0123),
                "gain_of_all": 0.2,
            },
            "sensitivity": {
                "average_mAP_N": 0.4,
                "missed": 0.3,
                "buckets": {"coverage": [{**bucket, "instances": 0}], "length": [bucket, last]},
            },
        },
        "curves": {
            "precision_recall": {
                "recall": points,
                "mean": {tiou: [1.0, 0.5, 0.0] for tiou in TIOUS},
                "classes": {name: {"0.30": [1.0, 0.5, 0.0]} for name in names},
            },
            "average_recall": {
                "proposals": [1.0, 2.0, 3.0],
                "mean": [0.1, 0.9, 0.9],
                "tIoU": {"0.50": [0.1, 0.9, 0.9]},
            },
        },
        "notes": ["video_test_0000270 is in the score"],
    }


@pytest.fixture
def written(tmp_path):
    """A function: evaluation.json -> its page as text; the figures lie in tmp_path."""

    def write(content):
        (tmp_path / "evaluation.json").write_text(json.dumps(content))
        return write_evaluation_page(tmp_path).read_text()

    return write


def test_the_page_holds_the_numbers_and_stands_alone(written, tmp_path):
    page = written(evaluation(["jump", "run"]))
    for text in (
        "33.33 %",
        "31.11 to 35.55",
        "71.00",
        "+1.23",
        "30.0 % of the instances are missed",
        "2 of 7 predictions",
        "video_test_0000270",
    ):
        assert text in page
    assert "3.33 points above other.json" in page
    assert not re.search(r"(src|href)=\"(?!#)|<script|@import|url\((?!#)|http", page)
    assert {path.stem for path in tmp_path.glob("*.svg")} == ALL_FIGURES


def test_parts_that_were_not_asked_for_are_left_out(written):
    content = evaluation(["jump"])
    for part in ("bootstrap", "against", "errors", "curves", "notes", "AP", "instances", "recall_at_kx"):
        del content[part]
    page = written(content)
    assert set(draw_figures(content)) == {"map_at_tiou"}
    assert "Errors" not in page
    assert "Every class" not in page


def test_names_of_classes_are_shown_as_they_are(written, tmp_path):
    page = written(evaluation(["<script>alert(1)</script>", "a & b"]))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    ElementTree.parse(tmp_path / "class_ap.svg")


def test_a_figure_as_a_file_is_whole_svg_in_the_light_colours():
    for name, svg in draw_figures(evaluation(["jump", "run"])).items():
        text = standalone_svg(svg)
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg", name
        assert {"width", "height", "viewBox"} <= set(root.attrib)
        assert "var(" not in text
        assert 'fill="#ffffff"' in text


def test_of_200_classes_the_best_and_the_worst_are_named_and_all_have_a_curve(written):
    names = [f"class {index:03d}" for index in range(200)]
    content = evaluation(names)
    figure = plot_class_ap(content)
    assert sum(name in figure for name in names) == 20
    assert "180 classes between" in figure
    page = written(content)
    assert page.count("<polyline") == 200
    assert len(page) < 500_000
    content = evaluation(names[:24])
    assert sum(name in plot_class_ap(content) for name in names) == 24


def test_a_class_curve_leaves_out_points_on_a_level():
    svg = class_curve([0.0, 0.25, 0.5, 0.75, 1.0], {"0.50": [1.0, 1.0, 1.0, 0.5, 0.0]})
    assert 'points="0,0.0 50,0.0 75,30.0 100,60.0"' in svg
