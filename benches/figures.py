"""The figure for benches/README.md, as SVG by hand: bars for what is compared, lines for growth. Colours follow the reader's light or dark theme."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 900, 700
BARS = (
    ("start-up over the bare child, µs", "start, µs"),
    ("memory of its own (Private_Dirty), kB", "Private_Dirty, kB"),
    ("SIGUSR1 to the child, µs added", "SIGUSR1, µs"),
    ("the child's end to its own, µs added", "end, µs"),
    ("processor time for an orphan, µs", "orphans in a stream, µs each"),
    ("tree of 2,000 in own sessions: left", "tree: detached: left"),
)
STYLE = """
    .card { fill: #ffffff; stroke: #d0d7de }
    .text { fill: #1f2328 }
    .dim { fill: #59636e }
    .line { stroke: #d0d7de; fill: none }
    .bowout { fill: #0969da } .floor { fill: #afb8c1 } .peer { fill: #818b98 }
    .l-bowout { stroke: #0969da } .l-floor { stroke: #afb8c1 } .l-peer { stroke: #818b98 }
    .plot { fill: none; stroke-width: 2 }
    .head { font-weight: 600 }
    .small { font-size: 12px }
    @media (prefers-color-scheme: dark) {
      .card { fill: #151b23; stroke: #3d444d }
      .text { fill: #f0f6fc }
      .dim { fill: #9198a1 }
      .line { stroke: #3d444d }
      .bowout { fill: #4493f8 } .floor { fill: #59636e } .peer { fill: #7d8590 }
      .l-bowout { stroke: #4493f8 } .l-floor { stroke: #59636e } .l-peer { stroke: #7d8590 }
    }"""
DASHES = {"bowout": "", "floor": "2 3", "tini-static": "7 4", "dumb-init": "9 3 2 3", "catatonit": "1 4"}


def kind(name):
    return name if name in ("bowout", "floor") else "peer"


def text(x, y, words, classes="text", anchor="start"):
    return f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def bars(x, y, width, title, values):
    """One panel: values are (name, value or None)."""
    most = max((value for _, value in values if value is not None), default=1) or 1
    out = [text(x, y, title, "text head")]
    for n, (name, value) in enumerate(values):
        top = y + 12 + n * 19
        out.append(text(x + 74, top + 12, name, "dim small", "end"))
        if value is None:
            out.append(text(x + 82, top + 12, "–", "dim small"))
            continue
        # A value below zero is within the noise of the bare child.
        length = max(1.0, value / most * (width - 130))
        out.append(f'<rect class="{kind(name)}" x="{x + 80}" y="{top + 1}" width="{length:.1f}" height="14" rx="2"/>')
        shown = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"
        out.append(text(x + 86 + length, top + 12, shown, "text small"))
    return out


def lines(x, y, width, height, title, series):
    """One panel, both axes logarithmic: a straight line at 45 degrees of the grid is linear growth."""
    points = [point for line in series.values() for point in line]
    low_x, high_x = math.log10(min(n for n, _ in points)), math.log10(max(n for n, _ in points))
    low_y = math.floor(math.log10(max(min(v for _, v in points), 0.01)))
    high_y = math.ceil(math.log10(max(v for _, v in points)))
    left, base = x + 44, y + height - 34

    def at(n, v):
        across = (math.log10(n) - low_x) / ((high_x - low_x) or 1)
        up = (math.log10(max(v, 10**low_y)) - low_y) / ((high_y - low_y) or 1)
        return left + across * (width - 60), base - up * (height - 60)

    out = [text(x, y, title, "text head")]
    # The legend stands above the lines: growth leaves the upper left corner free.
    for power in range(low_y, high_y + 1):
        _, level = at(10**low_x, 10**power)
        out.append(f'<path class="line" d="M{left} {level:.1f}H{x + width - 16}"/>')
        out.append(text(left - 6, level + 4, f"{10.0**power:,.{max(0, -power)}f}", "dim small", "end"))
    for n in (10, 100, 1000, 10_000):
        place, _ = at(n, 1)
        if low_x <= math.log10(n) <= high_x:
            out.append(text(place, base + 18, f"{n:,}", "dim small", "middle"))
    out.append(text(x + width - 16, base + 32, "processes", "dim small", "end"))
    for n, (name, line) in enumerate(series.items()):
        path = " ".join(f"{'L' if i else 'M'}{a:.1f} {b:.1f}" for i, (a, b) in enumerate(at(*point) for point in line))
        dash = f' stroke-dasharray="{DASHES.get(name)}"' if DASHES.get(name) else ""
        out.append(f'<path class="plot l-{kind(name)}"{dash} d="{path}"/>')
        key = y + 16 + n * 16
        out.append(f'<path class="plot l-{kind(name)}"{dash} d="M{left + 8} {key}h24"/>')
        out.append(text(left + 38, key + 4, name, "text small"))
    return out


def write(path, table, grown, names):
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"',
        "     font-family=\"-apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\" font-size=\"13\">",
        "  <title>What bowout costs, and what the other wrappers cost</title>",
        "  <desc>Bars: start-up, memory, latency, end, reaping, and processes left behind, for each program. Lines: how long reaping and killing take",
        "    for 10 to 20,000 processes, on logarithmic axes. Written by benches/run.</desc>",
        f"  <style>{STYLE}\n  </style>",
        f'  <rect class="card" x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="8"/>',
    ]
    for n, (title, figure) in enumerate(BARS):
        values = [(name, table.get(figure, name)) for name in names]
        out += bars(20 + n % 3 * 294, 30 + n // 3 * 190, 280, title, values)
    for n, (title, series) in enumerate(grown.items()):
        head = {0: "reap a burst: processor time, ms", 1: "end a tree that obeys, ms", 2: "SIGKILL to a detached tree, ms"}.get(n, title)
        out += lines(20 + n * 294, 420, 280, 254, head, series)
    out.append("</svg>")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")
