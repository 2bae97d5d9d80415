"""A folder with evaluation.json -> evaluation.html and its figures as SVG files beside it.

evaluation.json is a results.json with sampled curves and notes. The page stands alone, as `page` does; the files are for papers and
slides: light, on white, with text that stays text.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lofi.files import write_text
from lofi.report import evaluation_plots as plots
from lofi.report.evaluation import (
    class_averages,
    comparison_rows,
    comparison_sentence,
    error_rows,
    missed_sentence,
    subject,
    warnings,
)
from lofi.report.svg_style import STYLE_SHEET, standalone_svg

TEMPLATE = Path(__file__).with_name("evaluation_page.html.j2")


def write_evaluation_page(folder: str | Path) -> Path:
    """Read FOLDER/evaluation.json and write FOLDER/evaluation.html and a NAME.svg for each figure. Returns the page's path.

    Raises:
        FileNotFoundError: there is no evaluation.json.
    """
    folder = Path(folder)
    results = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    figures = draw_figures(results)
    for name, svg in figures.items():
        write_text(folder / f"{name}.svg", standalone_svg(svg))
    page = folder / "evaluation.html"
    write_text(page, render_evaluation_page(results, figures=figures))
    return page


def draw_figures(results: Mapping[str, Any]) -> dict[str, str]:
    """Name -> <svg> of every figure whose numbers are there."""
    curves, errors = results.get("curves") or {}, results.get("errors")
    figures = {"map_at_tiou": plots.plot_map_at_tiou(results)}
    if "precision_recall" in curves:
        figures["precision_recall"] = plots.plot_precision_recall(
            curves["precision_recall"], mAP=results["mAP"]
        )
    if "average_recall" in curves:
        figures["average_recall"] = plots.plot_average_recall(curves["average_recall"])
    if results.get("AP"):
        figures["class_ap"] = plots.plot_class_ap(results)
    if errors:
        figures["false_positives"] = plots.plot_false_positives(errors)
        figures["gains"] = plots.plot_gains(errors)
        figures["sensitivity"] = plots.plot_buckets(errors, which="average_mAP_N")
        figures["missed"] = plots.plot_buckets(errors, which="missed")
    return figures


def render_evaluation_page(results: Mapping[str, Any], *, figures: Mapping[str, str]) -> str:
    """The evaluation as one HTML page."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=_percent)
    curves = (results.get("curves") or {}).get("precision_recall")
    against = results.get("against")
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        style=Markup(STYLE_SHEET.read_text(encoding="utf-8")),
        subject=subject(results),
        results=results,
        tious=list(results["mAP"]),
        interval=results.get("bootstrap"),
        comparison=comparison_sentence(against) if against else None,
        rows=_tiou_rows(results),
        figures={name: Markup(svg) for name, svg in figures.items()},
        errors=error_rows(results["errors"]) if results.get("errors") else None,
        missed=missed_sentence(results["errors"]) if results.get("errors") else None,
        classes=class_averages(results) if results.get("AP") else [],
        curves=[
            (name, average, Markup(plots.class_curve(curves["recall"], curves["classes"][name])))
            for name, average in class_averages(results)
            if name in curves["classes"]
        ]
        if curves
        else [],
        curve_tious=list(next(iter(curves["classes"].values()), {})) if curves else [],
        notes=[*warnings(results.get("counts", {})), *results.get("notes", [])],
        made=_how_it_was_made(results),
    )


def _tiou_rows(results: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Name and cells, a cell for each tIoU and one for the mean."""
    rows = {"mAP": results["mAP"]}
    if results.get("against"):
        compared = comparison_rows(results)
        rows |= {"the other's mAP": compared["other"], "difference": compared["difference"]}
    for multiple, recall in results.get("recall_at_kx", {}).items():
        rows[f"recall at {multiple} x"] = recall
    means = {"mAP": results["average_mAP"]}
    if results.get("against"):
        against = results["against"]
        means |= {
            "the other's mAP": against["average_mAP"],
            "difference": f"{100 * against['difference']:+.2f}",
        }
    return [
        (name, [*(_percent(values[tiou]) for tiou in results["mAP"]), _percent(means.get(name, ""))])
        for name, values in rows.items()
    ]


def _how_it_was_made(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    made = [(name, str(value)) for name, value in results.get("source", {}).items()]
    made.append(("protocol", str(results.get("protocol", "default"))))
    if results.get("against"):
        made.append(("against", str(results["against"]["predictions"])))
    if results.get("bootstrap"):
        made.append(("seed of the bootstrap", str(results["bootstrap"]["seed"])))
    versions = results.get("versions", {})
    made.append(("packages", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return [(name, value) for name, value in made if value]


def _percent(value: float | str) -> str:
    """Two digits, as the field's tables have; text as it is."""
    return value if isinstance(value, str) else f"{100 * value:.2f}"
