"""How the page's figures look, and their way from matplotlib to an <svg> element inside the page.

One drawing serves the light and the dark page: matplotlib draws in stand-in colours, which are then replaced by the
page's CSS variables (--ink, --muted, --rule, --page, --method-0 ..., --part-0 ...). Text stays text, in the page's font.
"""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

STYLE_SHEET = Path(__file__).with_name("page.css")
"""Of every page; it holds the colours."""

NUM_METHOD_COLOURS = 8
NUM_PART_COLOURS = 6
INK, MUTED, RULE, PAGE = "#010101", "#010102", "#010103", "#010104"
METHOD_COLOURS = tuple(f"#0102{index:02x}" for index in range(NUM_METHOD_COLOURS))
PART_COLOURS = tuple(f"#0103{index:02x}" for index in range(NUM_PART_COLOURS))
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAGE: "page",
    **{colour: f"method-{index}" for index, colour in enumerate(METHOD_COLOURS)},
    **{colour: f"part-{index}" for index, colour in enumerate(PART_COLOURS)},
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.5,
    "font.family": ["DejaVu Sans"],
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelsize": 8.5,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.solid_capstyle": "round",
}


def svg_text(figure: Figure, *, name: str) -> str:
    """The figure as an <svg> element: no header, no metadata, ids of its own, colours by CSS variable."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = (
        re.sub(r'\s(?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", text[: text.index(">")])
        + text[text.index(">") :]
    )
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)  # a hundredth of a point is enough, and a third of the file
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    return re.sub(
        r"#010[123][0-9a-f]{2}\b",
        lambda match: f"var(--{_VARIABLES[match[0]]})" if match[0] in _VARIABLES else match[0],
        text,
    )


def standalone_svg(svg: str) -> str:
    """An <svg> element of a page as a file of its own: the light colours in place of the page's variables, on white."""
    colours: dict[str, str] = {}
    for name, value in re.findall(
        r"--([\w-]+):\s*(#[0-9a-fA-F]{3,8})", STYLE_SHEET.read_text(encoding="utf-8")
    ):
        colours.setdefault(name, value)  # the light ones come first
    svg = re.sub(r"var\(--([\w-]+)\)", lambda match: colours[match[1]], svg)
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box is not None
    _, _, width, height = box[1].split()
    start = svg.index(">") + 1
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" '
        f'height="{height}" viewBox="{box[1]}"><rect width="100%" height="100%" fill="{colours["page"]}"/>'
    )
    return head + svg[start:]
