"""Writes the figures of the benchmark as tables that a terminal and Markdown both show."""

from __future__ import annotations

from typing import Any

Results = dict[str, Any]


def table(head: list[str], rows: list[list[str]]) -> str:
    """The first column is aligned to the left, all others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, rows)]) + "\n"


def name(client: str) -> str:
    """What a client is called where it stands beside others."""
    return "arctos (Python)" if client == "arctos" else client


def short(number: float) -> str:
    """Three digits, or all that stand before the point."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def told(results: Results) -> str:
    machine = results["machine"]
    versions = [version for client, version in results["versions"].items() if client not in ("arctos", "many")]
    lines = [
        f"{machine['date']}, {machine['commit']}, {machine['processors']} × {machine['processor']}, "
        f"Linux {machine['kernel']}, Python {machine['python']}, {machine['rustc']}, {machine['cc']}.",
        f"Rounds: {results['rounds']}; processes for the first call: {results['processes']}. {', '.join(versions)}.",
        *(f"Left out: {what}: {why}." for what, why in results["left_out"].items()),
    ]
    return "\n\n".join(lines) + "\n"


def calls(results: Results) -> str:
    hosts = list(dict.fromkeys(line["host"] for line in results["calls"]))
    rows: dict[str, list[str]] = {}
    for line in results["calls"]:
        what = f"{line['transport']}, {line['threads']} × {name(line['client'])}"
        figures = [short(line[figure]) for figure in ("p50_us", "p99_us", "cpu_us", "calls_per_s")]
        rows.setdefault(what, []).extend(figures)
    head = ["transport, threads × client"]
    head += [figure for host in hosts for figure in (f"{host}: p50 µs", "p99 µs", "CPU µs", "calls/s")]
    return table(head, [[what, *figures] for what, figures in rows.items()])


def compared(results: Results) -> str:
    rows = []
    for line in results["compared"]:
        target, reached = "", ""
        if line["at_most"] is not None:
            target = f"at most {line['at_most']}"
        if line["at_least"] is not None:
            target = f"at least {line['at_least']}"
        if target:
            reached = "reached" if line["reached"] else "missed"
        rows.append([line["what"], f"{line['figure']:.2f}", target, reached])
    return table(["compared", "figure", "target", ""], rows)


def first_calls(results: Results) -> str:
    rows = [
        [
            f"{line['authorities']}, {name(line['client'])}",
            *(f"{line[key] / 1000:.2f}" for key in ("setup_us", "whole_us")),
        ]
        for line in results["first_calls"]
    ]
    return table(["authorities, client", "set-up ms", "with the first call ms"], rows)


def fresh_calls(results: Results) -> str:
    rows = [
        [f"{line['transport']}, {name(line['client'])}", *(short(line[key]) for key in ("p50_us", "p99_us", "cpu_us"))]
        for line in results["fresh_calls"]
    ]
    return table(["a new connection each call", "p50 µs", "p99 µs", "CPU µs"], rows)


def memory(results: Results) -> str:
    rows = [
        [f"resident, TLS connections: {line['connections']}, {line['client']}", short(line["rss_mb"])]
        for line in results["memory"]
    ]
    rows += [[f"file, {file}", short(size / 1e6)] for file, size in results["size"]["bytes"].items()]
    needed = results["size"]["needed"]
    needs = f"\nlibarctos.so needs {', '.join(needed)}.\n" if needed else ""
    return table(["memory and size", "MB"], rows) + needs


def growth(results: Results) -> str:
    rows = []
    for line in results["growth"]:
        figures = [short(line[key]) for key in ("p50_us", "p99_us", "cpu_us", "calls_per_s")]
        memory = [f"{line[key] / 1024:.1f}" for key in ("rss_kib", "peak_rss_kib")]
        rows.append([f"{line['transport']}, {line['what']}: {line['point']:,}", *figures, *memory])
    return table(["libarctos", "p50 µs", "p99 µs", "CPU µs", "calls/s", "RSS MiB", "peak MiB"], rows)


def slopes(results: Results) -> str:
    """From the first point of a series to the last."""
    series: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in results["growth"]:
        series.setdefault((line["transport"], line["what"]), []).append(line)
    rows = []
    for (transport, what), lines in series.items():
        unit, size = (f"KB of {what.partition(',')[0]}", 1000) if what.endswith("bytes") else (what.rstrip("s"), 1)
        first, last = lines[0], lines[-1]
        more = (last["point"] - first["point"]) / size
        figures = [f"{(last[key] - first[key]) / more:.3f}" for key in ("p50_us", "cpu_us", "peak_rss_kib")]
        rows.append([f"{transport}, each further {unit}", *figures])
    return table(["libarctos", "p50 µs", "CPU µs", "peak KiB"], rows)


def many(results: Results) -> str:
    rows = [[f"{line['transport']}, {line['how']}", short(line["calls_per_s"])] for line in results["many"]]
    return table(["many appointments", "calls/s"], rows)


def tables(results: Results) -> str:
    parts = [told, calls, compared, first_calls, fresh_calls, memory, growth, slopes, many]
    return "\n".join(part(results) for part in parts)
