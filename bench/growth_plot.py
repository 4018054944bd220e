"""Draw the figures of growth.py: small line charts, in light and dark. Reads JSON from standard input.

    python growth_plot.py growth.png < growth.json

writes growth.png and growth-dark.png, 900 pixels wide on a page, and growth-phone.png and growth-phone-dark.png.
growth.py runs it in the benchmark's venv, which has matplotlib.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable

import matplotlib
from growth import CLIENTS, MODELED, RECIPIENTS, STORED, median, model
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plot import DARK, DPI, LIGHT, Theme, add_card, save

PANEL = 900, 540  # pixels, twice what a README shows, for sharp screens
FOOT = {2: 120, 1: 220}  # pixels for the last lines and the margins, by the number of columns
TITLE, LABEL, NOTE = 10.5, 9.0, 8.6  # font sizes in points
Point = tuple[str, float]  # a label and a value
UNITS = {"": 1, "k": 1000, "M": 1_000_000}


@dataclasses.dataclass(frozen=True)
class Panel:
    title: str
    note: str
    measured: Callable[[dict], list[Point]]
    computed: Callable[[dict], list[Point]] = lambda result: []  # continues `measured`, dashed
    unit: str = ""


def short(number: float) -> str:
    """Return a number with at most three digits."""
    unit = max((unit for unit, size in UNITS.items() if number >= size or size == 1), key=UNITS.get)
    value = number / UNITS[unit]
    digits = 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2 if unit or value < 1 else 1
    return f"{value:,.{digits}f}{unit}"


def series(part: str, names: list, figure: str, scale: float = 1) -> Callable[[dict], list[Point]]:
    """Return what reads one figure for each of these cases."""

    def points(result: dict) -> list[Point]:
        found = [(str(name), median(result, f"{part} {name}", figure)) for name in names]
        return [
            (short(float(name)) if name.isdigit() else name, value * scale)
            for name, value in found
            if value is not None
        ]

    return points


def modeled(figure: str) -> Callable[[dict], list[Point]]:
    def points(result: dict) -> list[Point]:
        return [(short(number), model(result, number)[figure]) for number in MODELED if model(result, number)]

    return points


def all_memory(result: dict) -> list[Point]:
    """Return the memory in MiB of all clients."""
    found = [(number, median(result, f"clients {number}", "memory")) for number in CLIENTS]
    return [(short(number), value * number / 1024) for number, value in found if value is not None]


PANELS = [
    Panel("Memory of all clients", "MiB, by clients connected", all_memory, modeled("memory"), " MiB"),
    Panel(
        "CPU with idle clients",
        "%, by clients connected",
        series("clients", CLIENTS, "idle_cpu"),
        modeled("idle_cpu"),
        " %",
    ),
    Panel("Clients that connect", "a second, by their number", series("clients", CLIENTS, "connects")),
    Panel("Pushes, each to one client", "a second, by clients connected", series("clients", CLIENTS, "unicast")),
    Panel("Deliveries of a push to all", "a second, by recipients", series("fanout", RECIPIENTS, "deliveries")),
    Panel(
        "Others' replies during it, p99",
        "ms, by recipients",
        series("fanout", RECIPIENTS, "reply_p99", 1 / 1000),
        unit=" ms",
    ),
    Panel("CPU of a push", "µs, by publications stored", series("stored", list(STORED), "cpu"), unit=" µs"),
    Panel(
        "Recovery of 20 publications",
        "µs, by publications stored",
        series("stored", list(STORED), "recovery"),
        unit=" µs",
    ),
]
TICKS = {"10^4": "10k", "10^6": "1M", "10^6, each its own": "1M, each with\nits destination"}


def draw_line(axes: Axes, points: list[Point], start: int, theme: Theme, dashed: bool) -> None:
    places = range(start, start + len(points))
    color = theme.bars["relay"]
    style = {"linestyle": (0, (2, 2)), "markerfacecolor": theme.page} if dashed else {}
    axes.plot(places, [value for _, value in points], color=color, marker="o", markersize=5, linewidth=1.8, **style)


def draw_panel(axes: Axes, panel: Panel, result: dict, theme: Theme) -> None:
    measured, computed = panel.measured(result), panel.computed(result)
    points = measured + computed
    head = {"transform": axes.transAxes, "color": theme.text}
    axes.text(0, 1.17, panel.title, fontsize=TITLE, weight="bold", **head)
    axes.text(0, 1.05, panel.note, fontsize=NOTE, color=theme.faint, transform=axes.transAxes)
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.frame)
    axes.set_yticks([])
    axes.tick_params(axis="x", colors=theme.faint, labelsize=LABEL, length=0, pad=5)
    axes.set_xticks(range(len(points)), [TICKS.get(name, name) for name, _ in points])
    top = max((value for _, value in points), default=1) or 1
    axes.set_ylim(0, top * 1.3)
    axes.set_xlim(-0.4, max(len(points), 2) - 0.6)
    if computed:
        draw_line(axes, points[len(measured) - 1 :], len(measured) - 1, theme, dashed=True)
    draw_line(axes, measured, 0, theme, dashed=False)
    for place, (_, value) in enumerate(points):
        emphasis = {"color": theme.faint} if place >= len(measured) else {"color": theme.text, "weight": "bold"}
        text = short(value) + (panel.unit if place in (0, len(points) - 1) else "")
        axes.text(place, value + top * 0.09, text, ha="center", fontsize=LABEL, **emphasis)


def footnote(result: dict) -> str:
    reduced = "  ·  reduced work, not for comparing" if result["reduced"] else ""
    cores = f"{result['machine']['cpus']} cores, shared with the load generator"
    return f"{cores}  ·  dashed: computed from 19,000 clients{reduced}"


def draw(result: dict, theme: Theme, columns: int, target: pathlib.Path) -> None:
    matplotlib.rcParams["font.family"] = ["DejaVu Sans"]  # matplotlib's own: the same picture on every machine
    rows = len(PANELS) // columns
    width, height = PANEL[0] * columns, PANEL[1] * rows + FOOT[columns]
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    grid = figure.subplots(rows, columns)
    edge, below = 63 / width, (FOOT[columns] + 50) / height
    figure.subplots_adjust(edge, below, 1 - edge, 1 - 150 / height, wspace=0.1, hspace=0.62)
    figure.patch.set_alpha(0)
    add_card(figure, width, height, theme)
    for axes, panel in zip(grid.flat, PANELS, strict=True):
        draw_panel(axes, panel, result, theme)
    lines = footnote(result).replace("  ·  ", "  ·  " if columns > 1 else "\n")
    figure.text(0.5, 25 / height, lines, fontsize=NOTE, color=theme.faint, ha="center", linespacing=1.4)
    save(figure, target)


def main() -> None:
    target = pathlib.Path(sys.argv[1])
    result = json.load(sys.stdin)
    for columns, device in ((2, ""), (1, "-phone")):
        for theme, page in ((LIGHT, ""), (DARK, "-dark")):
            draw(result, theme, columns, target.with_stem(f"{target.stem}{device}{page}"))


if __name__ == "__main__":
    main()
