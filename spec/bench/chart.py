"""chart: the figures of a run as one SVG: how far each client is from the floor, on a logarithmic scale."""

import math
from xml.sax.saxutils import escape

WIDTH, GUTTER, ROW, HEAD = 900, 20, 17, 42
NAME, VALUE = 128, 92  # columns of a panel: who, and how long
PANEL = (WIDTH - 3 * GUTTER) // 2

STYLE = """
svg { font: 11px system-ui, sans-serif; --back: #fff; --text: #1f2328; --dim: #656d76; --grid: #d8dee4;
  --ours: #0969da; --peer: #8c959f; --floor: #57606a; }
@media (prefers-color-scheme: dark) { svg { --back: #0d1117; --text: #e6edf3; --dim: #9198a1; --grid: #30363d;
  --ours: #58a6ff; --peer: #6e7681; --floor: #9198a1; } }
.back { fill: var(--back); } text { fill: var(--text); } .dim { fill: var(--dim); }
.title { font-weight: 600; font-size: 12px; } .big { font-weight: 600; font-size: 16px; }
.right { text-anchor: end; } .middle { text-anchor: middle; } .tick { font-size: 9px; }
.grid { stroke: var(--grid); } .base { stroke: var(--floor); }
.ours { fill: var(--ours); } text.ours { font-weight: 600; } .peer { fill: var(--peer); } .floor { fill: var(--floor); }
"""


def duration(row):
    seconds = row["seconds"]
    if row["unit"] == "MB/s":
        return f"{25 / seconds:,.0f} MB/s"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.{0 if seconds > 0.01 else 1}f} ms"
    return f"{seconds * 1e6:.{0 if seconds > 1e-5 else 1}f} µs"


def text(x, y, words, kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(words)}</text>'


def panel(left, top, title, rows):
    """A workload: a bar a client, from the floor (or the fastest, where there is none) to where it is."""
    least = 1e-7  # seconds: so few messages that the difference is noise
    rows = sorted(({**row, "ratio": max(1e-4, row["to_floor"] or row["seconds"] / max(least, rows[0]["seconds"]))}
                   for row in rows), key=lambda row: row["ratio"])
    ratios = [row["ratio"] for row in rows]
    low = math.floor(math.log10(min(ratios)) - 1e-9) if min(ratios) < 0.9 else 0
    high = max(low + 1, math.ceil(math.log10(max(ratios))))
    start, stop = left + NAME, left + PANEL - VALUE

    def at(ratio):
        return start + (math.log10(ratio) - low) / (high - low) * (stop - start)

    bottom = top + HEAD + ROW * len(rows)
    out = [text(left, top + 14, title, "title")]
    for power in range(low, high + 1):
        x = at(10 ** power)
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top + HEAD - 6}" y2="{bottom}" class="{"base" if power == 0 else "grid"}"/>')
        out.append(text(x, top + HEAD - 10, f"{10.0 ** power:g}×", "tick dim middle"))
    for number, (row, ratio) in enumerate(zip(rows, ratios)):
        y, kind = top + HEAD + ROW * number, row["kind"]
        from_x, to_x = sorted((at(1), at(ratio)))
        out.append(text(start - 8, y + 12, row["client"], "right " + ("ours" if kind == "ours" else "")))
        out.append(f'<rect x="{from_x:.1f}" y="{y + 4}" width="{max(to_x - from_x, 0):.1f}" height="9" class="{kind}"/>')
        out.append(f'<circle cx="{at(ratio):.1f}" cy="{y + 8.5}" r="4.5" class="{kind}"/>')
        out.append(text(left + PANEL, y + 12, duration(row), "right " + ("ours" if kind == "ours" else "")))
    return "\n".join(out)


def draw(result):
    works = {key: sorted((row for row in result["rows"] if row["work"] == key), key=lambda row: row["seconds"])
             for key in result["works"]}
    works = {key: rows for key, rows in works.items() if rows}
    out, tops = [], [70, 70]
    for key, rows in works.items():
        side = tops.index(min(tops))
        out.append(panel(GUTTER + side * (PANEL + GUTTER), tops[side], result["works"][key], rows))
        tops[side] += HEAD + ROW * len(rows) + 22
    height = max(tops) + 34
    notes = [f"Median of {result['rounds']} rounds, {result['date']}, {result['machine']}.", result["versions"] + "."]
    if result["skipped"]:
        notes[0] += " Not here: " + ", ".join(result["skipped"]) + "."
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>What a message takes, beside other clients</title><style>{STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{height}" rx="6"/>',
        text(GUTTER, 28, "What a message takes", "big"),
        text(GUTTER, 47, "Times over those of a bare C program that sends ready bytes (1×), on a logarithmic scale: "
                         "further left is faster.", "dim"),
        *out, text(GUTTER, height - 28, notes[0], "dim"), text(GUTTER, height - 12, notes[1], "dim"), "</svg>\n"])
