"""Draw the figures of compare.py: small bar charts, with the relay's bars in color. Reads JSON from standard input.

    python plot.py result.png < result.json     writes result.png, and result-dark.png for dark pages

compare.py runs it in its cache's venv, which has matplotlib.
"""

import dataclasses
import json
import pathlib
import sys

import matplotlib
from compare import shown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

PIXELS = 1800, 1720  # twice the 900 that a README is wide, for sharp screens
DPI = 200
TITLE, LABEL, NOTE = 8.6, 7.5, 6.9  # font sizes in points; at 900 pixels, 12, 10 and 9.6 of them


@dataclasses.dataclass(frozen=True)
class Panel:
    figure: str
    title: str
    note: str
    unit: str = ""
    less_is_better: bool = False


PANELS = [
    Panel("kept", "Pushes per second", "plain forms, on kept connections"),
    Panel("kept_text", "Pushes per second", "forms with spaces and %"),
    Panel("kept_json", "Pushes per second", "JSON, as Relay.php sends it"),
    Panel("new", "Pushes per second", "a new connection each, as PHP"),
    Panel("unicast", "Pushes delivered per second", "each to one of all clients"),
    Panel("fanout", "Deliveries per second", "each push to {fan_clients:,} clients"),
    Panel("connects", "Clients connected per second", "WebSocket, up to registered"),
    Panel("memory", "Memory per idle client", "connected and registered", "KiB", True),
    Panel("delivery_p50", "Push to client, p50", "at {rate} pushes per second", "µs", True),
    Panel("reply_p50", "Reply to a push, p50", "at {rate} pushes per second", "µs", True),
    Panel("reply_p99", "Reply to a push, p99", "at {rate} pushes per second", "µs", True),
    Panel("delivery_p99", "Push to client, p99", "at {rate} pushes per second", "µs", True),
]
NAMES = {
    "relay": "The relay",
    "seed": "Node.js, socket.io",
    "werkzeug": "Flask-SocketIO¹\non Werkzeug",
    "gunicorn": "Flask-SocketIO¹\non gunicorn",
}


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colors that match GitHub's light and dark pages."""

    page: str
    frame: str
    text: str
    faint: str
    bars: dict[str, str]


LIGHT = Theme(
    page="#ffffff",
    frame="#d1d9e0",
    text="#1f2328",
    faint="#59636e",
    bars={"relay": "#0969da", "seed": "#7aa874", "werkzeug": "#b4bac1", "gunicorn": "#cdd2d8"},
)
DARK = Theme(
    page="#0d1117",
    frame="#3d444d",
    text="#f0f6fc",
    faint="#9198a1",
    bars={"relay": "#4493f8", "seed": "#5c8a56", "werkzeug": "#656c76", "gunicorn": "#4b525c"},
)


def with_unit(value: float, unit: str) -> str:
    if unit == "µs" and value >= 1000:
        return f"{shown(value / 1000)} ms"
    return f"{shown(value)} {unit}".rstrip()


def draw_bar(axes: Axes, row: int, name: str, value: float | None, text: str, scale: float, theme: Theme) -> None:
    """Draw one server's bar and its number; `scale` is the panel's largest value."""
    emphasis = {"weight": "bold", "color": theme.text} if name == "relay" else {"color": theme.faint}
    length = max(value or 0, 0)  # failures and negative values (memory, with few clients) have no bar
    axes.barh(row, length, height=0.66, color=theme.bars[name], linewidth=0)
    axes.text(length + scale * 0.025, row, text, va="center", fontsize=LABEL, **emphasis)


def draw_names(axes: Axes, servers: list[str], scale: float, theme: Theme) -> None:
    for row, name in enumerate(servers):
        emphasis = {"weight": "bold", "color": theme.text} if name == "relay" else {"color": theme.faint}
        place = {"va": "center", "ha": "right", "linespacing": 1.05}
        axes.text(-scale * 0.045, row, NAMES[name], fontsize=LABEL, **place, **emphasis)


def draw_panel(axes: Axes, panel: Panel, result: dict, theme: Theme, with_names: bool) -> None:
    servers = list(result["medians"])
    values = [result["medians"][name].get(panel.figure) for name in servers]
    scale = max((value for value in values if value is not None), default=1)
    scale = scale if scale > 0 else 1
    for row, (name, value) in enumerate(zip(servers, values, strict=True)):
        draw_bar(axes, row, name, value, "failed" if value is None else with_unit(value, panel.unit), scale, theme)
    if with_names:
        draw_names(axes, servers, scale, theme)
    axes.set_xlim(0, scale * 1.38)  # room for the number behind the longest bar
    axes.set_ylim(len(servers) - 0.45, -0.55)
    axes.axis("off")
    axes.axvline(0, color=theme.frame, linewidth=0.8)
    head = {"transform": axes.transAxes, "color": theme.text}
    axes.text(0, 1.21, panel.title, fontsize=TITLE, weight="bold", **head)
    better, weight = ("less is better", "bold") if panel.less_is_better else ("more is better", "normal")
    place = {"xycoords": "axes fraction", "fontsize": NOTE}
    note = axes.annotate(f"{better}  ", (0, 1.065), weight=weight, color=theme.text, **place)
    text = f"·  {panel.note.format(**result['work'])}"
    axes.annotate(text, (1, 0), xycoords=note, va="bottom", fontsize=NOTE, color=theme.faint)


def footnote(result: dict) -> str:
    work, machine, clients = result["work"], result["machine"], result["clients"]
    stock = [count for name, count in clients.items() if name in ("werkzeug", "gunicorn")]
    others = [count for name, count in clients.items() if name in ("relay", "seed")]
    parts = [f"{max(others or stock):,} clients"]
    if stock:
        fewer = (
            f", {max(stock):,} clients, because each needs its own threads"
            if max(stock) != max(others or stock)
            else ""
        )
        parts.append(f"¹ stock, threading mode{fewer}")
    parts.append(f"medians of {work['rounds']} rounds" if work["rounds"] > 1 else "one round")
    parts.append(f"{machine['cpus']} cores, shared with the load generator")
    if work["reduced"]:
        parts.append("reduced work, not for comparing")
    return "  ·  ".join(parts)


def draw(result: dict, theme: Theme, target: pathlib.Path) -> None:
    matplotlib.rcParams["font.family"] = ["DejaVu Sans"]  # matplotlib's own: the same picture on every machine
    figure = Figure(figsize=(PIXELS[0] / DPI, PIXELS[1] / DPI), dpi=DPI)
    grid = figure.subplots(len(PANELS) // 3, 3)
    figure.subplots_adjust(left=0.15, right=0.99, top=0.925, bottom=0.057, wspace=0.06, hspace=0.52)
    figure.patch.set_alpha(0)
    # A card with round corners, which looks right on a page of the other color too.
    box = {"boxstyle": "round,pad=0,rounding_size=0.012", "mutation_aspect": PIXELS[0] / PIXELS[1]}
    card = FancyBboxPatch((0.001, 0.0015), 0.998, 0.997, **box, fc=theme.page, ec=theme.frame, lw=0.8, zorder=-10)
    card.set_transform(figure.transFigure)
    figure.add_artist(card)
    for place, panel in enumerate(PANELS):
        draw_panel(grid.flat[place], panel, result, theme, with_names=place % 3 == 0)
    figure.text(0.5, 0.017, footnote(result), fontsize=NOTE, color=theme.faint, ha="center")
    figure.savefig(target, dpi=DPI)


def main() -> None:
    target = pathlib.Path(sys.argv[1])
    result = json.load(sys.stdin)
    draw(result, LIGHT, target)
    draw(result, DARK, target.with_stem(f"{target.stem}-dark"))


if __name__ == "__main__":
    main()
