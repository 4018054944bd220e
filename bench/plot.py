"""Draw the figures of compare.py: small bar charts, with the relay's bars in color. Reads JSON from standard input.

    python plot.py result.png < result.json

writes result.png and result-dark.png, 900 pixels wide on a page, and result-phone.png and result-phone-dark.png.
compare.py runs it in its cache's venv, which has matplotlib.
"""

import dataclasses
import io
import json
import pathlib
import sys

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from tables import RELAY, Column, columns, rounds_of, shown

DPI = 200
TITLE, LABEL, NOTE = (
    8.6,
    7.4,
    6.9,
)  # font sizes in points; 12, 10 and 9.6 pixels, because pictures are shown at half size
ROW = 32  # pixels of a bar with the gap below it
HEAD = 128  # pixels of a panel beside its bars: its title, its note and the gap to the next
CUT = 5  # a longer bar than this many times the relay's is cut


@dataclasses.dataclass(frozen=True)
class Panel:
    figure: str
    title: str
    note: str
    unit: str = ""
    less_is_better: bool = False


PANELS = [
    Panel("kept", "Pushes per second", "plain forms, kept connections"),
    Panel("kept_text", "Pushes per second", "forms with spaces and %"),
    Panel("kept_json", "Pushes per second", "JSON, as Relay.php sends it"),
    Panel("new", "Pushes per second", "a new connection each (PHP)"),
    Panel("unicast", "Pushes delivered per second", "each to one of all clients"),
    Panel("fanout", "Deliveries per second", "each push to {fan_clients:,} clients"),
    Panel("connects", "Clients connected per second", "WebSocket, up to registered"),
    Panel("memory", "Memory per idle client", "connected and registered", "KiB", True),
    Panel("push_cpu", "CPU per push", "on kept connections", "µs", True),
    Panel("reply_p50", "Reply to a push, p50", "at {rate} pushes per second", "µs", True),
    Panel("reply_p99", "Reply to a push, p99", "at {rate} pushes per second", "µs", True),
    Panel("delivery_p99", "Push to client, p99", "at {rate} pushes per second", "µs", True),
]
NAMES = {
    RELAY: "The relay",
    "nchan": "nchan (C), 1 worker",
    "seed": "Node.js, socket.io",
    "pushpin": "pushpin (C++, Rust)",
    "uvicorn": "python-socketio¹, uvicorn",
    "gunicorn": "Flask-SocketIO¹, gunicorn",
    "werkzeug": "Flask-SocketIO¹, Werkzeug",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A picture's width in pixels, twice those on the page, and how its panels are arranged."""

    suffix: str
    width: int
    across: int
    left: int  # pixels for the names
    panels: tuple[str, ...]


WIDE = Layout("", 1800, 3, 316, tuple(panel.figure for panel in PANELS))
PHONE = Layout(
    "-phone",
    780,
    1,
    316,
    ("kept", "kept_json", "new", "unicast", "fanout", "connects", "memory", "reply_p99", "delivery_p99"),
)


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colors that match GitHub's light and dark pages."""

    suffix: str
    page: str
    frame: str
    text: str
    faint: str
    bars: dict[str, str]


LIGHT = Theme(
    suffix="",
    page="#ffffff",
    frame="#d1d9e0",
    text="#1f2328",
    faint="#59636e",
    bars={
        RELAY: "#0969da",
        "nchan": "#d4a72c",
        "seed": "#7aa874",
        "pushpin": "#b392d6",
        "uvicorn": "#e0a088",
        "gunicorn": "#b4bac1",
        "werkzeug": "#cdd2d8",
    },
)
DARK = Theme(
    suffix="-dark",
    page="#0d1117",
    frame="#3d444d",
    text="#f0f6fc",
    faint="#9198a1",
    bars={
        RELAY: "#4493f8",
        "nchan": "#9e7a1c",
        "seed": "#5c8a56",
        "pushpin": "#7d62a3",
        "uvicorn": "#a06651",
        "gunicorn": "#656c76",
        "werkzeug": "#4b525c",
    },
)


def with_unit(value: float, unit: str) -> str:
    if unit == "µs" and value >= 1000:
        return f"{shown(value / 1000)} ms"
    return f"{shown(value)} {unit}".rstrip()


def emphasis(name: str, theme: Theme) -> dict:
    return {"weight": "bold", "color": theme.text} if name == RELAY else {"color": theme.faint}


def draw_bar(axes: Axes, row: int, name: str, value: float | None, unit: str, scale: float, theme: Theme) -> None:
    """Draw one server's bar and its number. A bar longer than `scale` is cut, which a gap near its end shows."""
    length = min(max(value or 0, 0), scale)  # failures and negative values (memory, with few clients) have no bar
    axes.barh(row, length, height=0.68, color=theme.bars[name], linewidth=0)
    if value and value > scale:
        gap = [scale * 0.90, scale * 0.915]
        axes.plot(gap, [row + 0.45, row - 0.45], color=theme.page, linewidth=2.2, solid_capstyle="butt")
    text = "failed" if value is None else with_unit(value, unit)
    axes.text(length + scale * 0.025, row, text, va="center", fontsize=LABEL, **emphasis(name, theme))


def draw_names(axes: Axes, servers: list[Column], scale: float, theme: Theme) -> None:
    for row, column in enumerate(servers):
        place = {"va": "center", "ha": "right", "fontsize": LABEL}
        axes.text(-scale * 0.045, row, NAMES[column.name], **place, **emphasis(column.name, theme))


def scale_of(values: dict[str, float]) -> float:
    """Return the value of the longest bar: at most CUT times the relay's, so that the relay's bar can be seen."""
    longest = max(values.values(), default=1)
    relay = values.get(RELAY, 0)
    longest = min(longest, CUT * relay) if relay > 0 else longest
    return longest if longest > 0 else 1


def draw_panel(axes: Axes, panel: Panel, servers: list[Column], work: dict, theme: Theme, with_names: bool) -> None:
    values = {each.name: each.medians[panel.figure] for each in servers if panel.figure in each.medians}
    scale = scale_of(values)
    for row, column in enumerate(servers):
        draw_bar(axes, row, column.name, values.get(column.name), panel.unit, scale, theme)
    if with_names:
        draw_names(axes, servers, scale, theme)
    axes.set_xlim(0, scale * 1.4)  # room for the number behind the longest bar
    axes.set_ylim(len(servers) - 0.5, -0.5)
    axes.axis("off")
    axes.axvline(0, color=theme.frame, linewidth=0.8)
    above = {"textcoords": "offset points", "xycoords": "axes fraction"}
    axes.annotate(panel.title, (0, 1), (0, 16), fontsize=TITLE, weight="bold", color=theme.text, **above)
    better, weight = ("less is better", "bold") if panel.less_is_better else ("more is better", "normal")
    note = axes.annotate(f"{better}  ", (0, 1), (0, 5), fontsize=NOTE, weight=weight, color=theme.text, **above)
    text = f"·  {panel.note.format(**work)}"
    axes.annotate(text, (1, 0), xycoords=note, va="bottom", fontsize=NOTE, color=theme.faint)


def footnotes(result: dict, found: dict[str, Column], layout: Layout) -> list[str]:
    """Return the lines below the panels. A narrow picture has a line for each part."""
    run = result["runs"][-1]
    work, machine = run["work"], run["machine"]
    clients = max(column.clients for column in found.values())
    fewer = min(column.clients for column in found.values())
    parts = [
        f"{clients:,} clients",
        f"medians of {rounds_of(result)}",
        f"{machine['cpus']} cores, shared with the load generator",
    ]
    if work["reduced"]:
        parts.append("reduced work, not for comparing")
    notes = ["  ·  ".join(parts)] if layout.across > 1 else parts
    if fewer < clients:
        notes.append(f"¹ {fewer:,} clients")
    notes.append(f"A bar with a gap is longer: more than {CUT} times the relay's")
    return notes


def draw(result: dict, theme: Theme, layout: Layout, target: pathlib.Path) -> None:
    matplotlib.rcParams["font.family"] = ["DejaVu Sans"]  # matplotlib's own: the same picture on every machine
    found = columns(result)
    servers = [found[name] for name in NAMES if name in found]
    panels = [panel for panel in PANELS if panel.figure in layout.panels]
    notes = footnotes(result, found, layout)
    down = -(-len(panels) // layout.across)
    bars, foot = len(servers) * ROW, 30 * len(notes) + 30
    height = down * (bars + HEAD) + foot
    figure = Figure(figsize=(layout.width / DPI, height / DPI), dpi=DPI)
    figure.patch.set_alpha(0)
    add_card(figure, layout.width, height, theme)
    panel_width = (layout.width - layout.left) / layout.across
    for place, panel in enumerate(panels):
        row, column = divmod(place, layout.across)
        bottom = height - (row + 1) * (bars + HEAD) + 18
        box = [layout.left + column * panel_width, bottom, panel_width - 16, bars]
        axes = figure.add_axes((box[0] / layout.width, box[1] / height, box[2] / layout.width, box[3] / height))
        draw_panel(axes, panel, servers, result["runs"][-1]["work"], theme, with_names=column == 0)
    for line, text in enumerate(notes):
        y = (foot - 34 - 30 * line) / height
        figure.text(0.5, y, text, fontsize=NOTE, color=theme.faint, ha="center")
    save(figure, target.with_stem(f"{target.stem}{layout.suffix}{theme.suffix}"))


def save(figure: Figure, target: pathlib.Path) -> None:
    """Write a PNG with a palette, which has a quarter of the bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI, format="png")
    Image.open(drawn).quantize(128, Image.Quantize.FASTOCTREE).save(target, optimize=True)


def add_card(figure: Figure, width: int, height: int, theme: Theme) -> None:
    """Draw a card with round corners, which looks right on a page of the other color too."""
    box = {"boxstyle": f"round,pad=0,rounding_size={20 / width}", "mutation_aspect": width / height}
    edge = 2 / width, 2 / height
    card = FancyBboxPatch(
        edge, 1 - 2 * edge[0], 1 - 2 * edge[1], **box, fc=theme.page, ec=theme.frame, lw=0.8, zorder=-9
    )
    card.set_transform(figure.transFigure)
    figure.add_artist(card)


def main() -> None:
    result = json.load(sys.stdin)
    for layout in (WIDE, PHONE):
        for theme in (LIGHT, DARK):
            draw(result, theme, layout, pathlib.Path(sys.argv[1]))


if __name__ == "__main__":
    main()
