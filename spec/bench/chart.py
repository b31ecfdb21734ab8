"""chart: the figures of one run of the bench as an SVG that reads on light and dark ground."""
from xml.sax.saxutils import escape

WIDTH, LABEL, BAR, ROW, GAP = 860, 330, 400, 20, 34
COLORS = {"floor": "#8b949e", "ours": "#2f81f7", "peer": "#c9862b"}
NAMES = {"floor": "bare C with ready-made bytes", "ours": "this library", "peer": "others"}


def words(row):
    if row["mb_per_second"]:
        return f"{row['mb_per_second']:,.0f} MB/s"
    value = row["wall"]
    return f"{value * 1e6:.0f} µs" if value < 0.002 else f"{value * 1e3:.0f} ms" if value < 0.5 else f"{value:.2f} s"


def text(x, y, content, more=""):
    return f'<text x="{x}" y="{y}" {more}>{escape(content)}</text>'


def draw(report):
    out, y = [], 66
    for result in report["workloads"]:
        rows = result["rows"]
        # times from nothing to the longest; an attachment's speed likewise, so that there the longer bar is the better one
        big = rows and rows[0]["mb_per_second"] is not None
        value = (lambda row: row["mb_per_second"]) if big else (lambda row: row["wall"])
        most = max((value(row) for row in rows), default=1)
        unit = "more is better" if big else "the whole work, less is better" if result["name"] == "slow" else "a message, less is better"
        y += GAP - ROW
        out.append(text(16, y, result["title"], 'class="title"') + text(WIDTH - 16, y, unit, 'class="note" text-anchor="end"'))
        y += 8
        for row in rows:
            length = max(2, BAR * value(row) / most)
            out.append(text(LABEL - 8, y + 14, row["client"], f'text-anchor="end" class="{row["kind"]}"'))
            out.append(f'<rect x="{LABEL}" y="{y + 3}" width="{length:.1f}" height="{ROW - 6}" rx="2" fill="{COLORS[row["kind"]]}"/>')
            out.append(text(LABEL + length + 6, y + 14, words(row), 'class="value"'))
            y += ROW
        y += GAP - ROW
    m = report["machine"]
    legend = "".join(
        f'<rect x="{16 + 230 * i}" y="38" width="12" height="12" rx="2" fill="{COLORS[kind]}"/>' + text(34 + 230 * i, 48, NAMES[kind], 'class="note"')
        for i, kind in enumerate(("ours", "peer", "floor")))
    y += 10
    return f'''<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 16}" viewBox="0 0 {WIDTH} {y + 16}" font-family="system-ui, sans-serif" font-size="12">
<style>
text {{ fill: #1f2328 }} .title {{ font-weight: 600; font-size: 13px }} .note {{ fill: #59636e }} .ours {{ font-weight: 600 }}
.ground {{ fill: #ffffff }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .note {{ fill: #9198a1 }} .ground {{ fill: #0d1117 }} }}
</style>
<rect class="ground" width="100%" height="100%" rx="6"/>
{text(16, 24, "Sending mail: time and speed beside others, in one run", 'font-size="15" font-weight="600"')}
{legend}
{chr(10).join(out)}
{text(16, y, f"{m['date']} · {m['cpus']} CPUs, {m['cpu']} · Linux {m['kernel']} · {m['lua']} · client and sink on one machine, medians", 'class="note"')}
</svg>
'''
