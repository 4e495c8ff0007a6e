"""Draws the figures of the benchmark as SVG: bars of what a call takes, for calls of one thread to 127.0.0.1."""

from __future__ import annotations

from html import escape
from typing import Any

WIDTH, MARGIN = 820, 28
LABELS, VALUES = 190, 70
BAR, STEP, GAP = 16, 21, 12
OURS, OTHERS, INK, FAINT, PAPER = "#0b6fa4", "#a9b4bd", "#1f2a33", "#5d6b76", "#ffffff"

NATIVE = ["libarctos", "libcurl", "raw"]
PYTHON = ["arctos", "pycurl", "httpx", "requests"]
NAMES = {"raw": "a bare socket, rustls for https", "arctos": "arctos (this package)"}
PANELS = [
    ("A call from C or Rust", "median, µs", NATIVE, "p50_us"),
    ("A call from Python", "median, µs", PYTHON, "p50_us"),
    ("Processor time of a call from C or Rust", "µs", NATIVE, "cpu_us"),
]


def text(
    x: float, y: float, words: str, size: int = 13, *, colour: str = INK, end: bool = False, bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}"{weight}{anchor}>{escape(words)}</text>'


def short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def panel(top: float, title: str, unit: str, groups: dict[str, dict[str, float]]) -> tuple[list[str], float]:
    """The bars of one panel, and where it ends."""
    drawn = [
        text(MARGIN, top + 14, title, 15, bold=True),
        text(WIDTH - MARGIN, top + 14, unit, 12, colour=FAINT, end=True),
    ]
    y = top + 26
    left = MARGIN + 48 + LABELS
    most = max(figure for bars in groups.values() for figure in bars.values())
    for transport, bars in groups.items():
        drawn.append(text(MARGIN, y + 13, transport, bold=True, colour=FAINT))
        for name, figure in bars.items():
            ours = name in ("libarctos", "arctos")
            width = max(1.0, (WIDTH - MARGIN - VALUES - left) * figure / most)
            drawn.append(text(left - 8, y + 13, NAMES.get(name, name), end=True, bold=ours))
            colour = OURS if ours else OTHERS
            drawn.append(f'<rect x="{left}" y="{y:g}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>')
            drawn.append(text(left + width + 6, y + 13, short(figure), bold=ours))
            y += STEP
        y += GAP
    return drawn, y


def caption(results: dict[str, Any]) -> list[str]:
    machine, versions = results["machine"], results["versions"]
    native = [versions[name] for name in NATIVE if name in versions and name != "raw"]
    python = [versions[name] for name in PYTHON[1:] if name in versions]
    return [
        f"1 thread, http and https to 127.0.0.1 over kept connections; interleaved rounds: {results['rounds']}; "
        f"{machine['date']}, {machine['commit']}",
        ", ".join(native + python),
        f"Python {machine['python']}, {machine['rustc']}",
        f"{machine['processors']} × {machine['processor']}, Linux {machine['kernel']}",
    ]


def draw(results: dict[str, Any]) -> str:
    lines = [line for line in results["calls"] if line["threads"] == 1 and line["host"] == "127.0.0.1"]
    drawn: list[str] = [text(MARGIN, 38, "What a call costs", 20, bold=True)]
    y = 60.0
    for title, unit, names, key in PANELS:
        groups: dict[str, dict[str, float]] = {}
        for name in names:
            for line in lines:
                if line["client"] == name:
                    groups.setdefault(line["transport"], {})[name] = line[key]
        parts, y = panel(y, title, unit, groups)
        drawn += parts
        y += 8
    for words in caption(results):
        drawn.append(text(MARGIN, y + 10, words, 11, colour=FAINT))
        y += 16
    height = y + 12
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" viewBox="0 0 {WIDTH} {height:g}"'
    )
    paper = (
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="8" fill="{PAPER}" stroke="#d5dbe0"/>'
    )
    font = "font-family=\"system-ui, 'Segoe UI', 'Liberation Sans', Helvetica, Arial, sans-serif\""
    return "\n".join([f'{head} {font} role="img" aria-label="What a call costs">', paper, *drawn, "</svg>"]) + "\n"
