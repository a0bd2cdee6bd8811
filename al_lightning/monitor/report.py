"""``report.html``: a run on one page, which needs no other file and no network.

It is made from the run folder alone, so it can be made at any time, also of a run that goes on.
"""

import base64
import csv
import json
import platform
from collections.abc import Iterable, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from al_lightning.monitor.drawing import as_shown
from al_lightning.monitor.monitor import Loop, Monitor
from al_lightning.monitor.tables import metrics_table
from al_lightning.run.folder import CONFIG, records_of, shown, write_whole
from al_lightning.run.journal import Record
from al_lightning.run.records import CycleResult, results_of

REPORT = "report.html"
PACKAGES = ("al_lightning", "torch", "torchvision", "lightning", "numpy")
NUM_ROWS = 20
"""Rows of a query that are listed; its table in the run folder has all."""
MAX_PICTURE = 4 * 2**20
"""Bytes of a picture that the page takes; of a larger one it says where it is."""
WIDTH, HEIGHT, MARGIN = 430, 240, 60
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; background: #fff; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; } img { max-width: 100%; } pre { background: #f4f4f4; padding: 1rem;
overflow-x: auto; } .curves { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; }
figcaption { font-weight: 600; } summary { cursor: pointer; }
"""


class Report(Monitor):
    """Writes ``report.html`` when a run is over."""

    def on_start(self, loop: Loop) -> None:
        if loop.finished:
            self.on_end(loop)

    def on_end(self, loop: Loop) -> None:
        if loop.run_dir is not None:
            write_report(loop.run_dir)


def write_report(run_dir: Path) -> Path:
    """Write the report of a run into its folder, and return its path.

    Args:
        run_dir: The run's folder; the run may go on meanwhile.

    Raises:
        ValueError: when the folder holds no run, or its journal is damaged.
    """
    page = report_of(run_dir, records_of(run_dir, " to report on"))
    write_whole(run_dir / REPORT, page.encode("utf-8", "backslashreplace"))
    return run_dir / REPORT


def report_of(run_dir: Path, records: Sequence[Record]) -> str:
    """Return the page, HTML, of the records of a run and of what is in its folder."""
    name, results = escape("/".join(run_dir.resolve().parts[-2:])), results_of(records)
    header, rows = metrics_table(results)
    parts = [
        f"<h1>{name}</h1><p>{escape(state_of(records, results))}</p>",
        f"<h2>Curves</h2><div class=curves>{''.join(_curves(results))}</div>",
        f"<h2>Cycles</h2>{_table(header, rows)}",
        "<h2>Queries</h2>",
        *(_query(run_dir, result) for result in results if result.query is not None),
        f"<h2>Configuration</h2><pre>{escape(_configuration(run_dir, records))}</pre>",
        f"<h2>See more</h2><pre>tensorboard --logdir {escape(shown(run_dir))}</pre>",
        f"<h2>Written with</h2>{_table(['', ''], _versions())}",
    ]
    head = f"<meta charset=utf-8><title>{name}</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>"


def state_of(records: Sequence[Record], results: Sequence[CycleResult]) -> str:
    """Return a sentence: how far a run has come, and why it ended."""
    last = next(record for record in reversed(records) if record["event"] != "settings")
    labels = f" The last cycle had {results[-1].num_labeled:,} labels." if results else ""
    if last["event"] == "end":
        return f"The run is over: {last.get('why') or last['reason']}.{labels}"
    done = f"{len(results)} {'cycle is' if len(results) == 1 else 'cycles are'} done"
    return f"The run goes on: {done}, and the last step was {last['event']!r}.{labels}"


def _curves(results: Sequence[CycleResult]) -> list[str]:
    """Draw each metric against the number of labels, tests first; none of fewer than two points."""
    names = {name for result in results for name in result.metrics}
    ordered = sorted(names, key=lambda name: (not name.startswith("test"), name))
    points = {
        name: [(r.num_labeled, r.metrics[name]) for r in results if name in r.metrics]
        for name in ordered
    }
    return [_curve(name, of_it) for name, of_it in points.items() if len(of_it) > 1]


def _curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    """Draw a metric as an SVG figure; a value that is not finite breaks the line."""
    finite = [y for _, y in points if abs(y) < float("inf")]
    if not finite:
        return f"<p>{escape(name)} has no finite value.</p>"
    low, high, first, last = min(finite), max(finite), points[0][0], points[-1][0]
    runs: list[list[str]] = [[]]
    for x, y in points:
        if abs(y) < float("inf"):
            across = MARGIN + (x - first) / ((last - first) or 1) * (WIDTH - 2 * MARGIN)
            up = HEIGHT - MARGIN - (y - low) / ((high - low) or 1) * (HEIGHT - 2 * MARGIN)
            runs[-1].append(f"{across:.1f},{up:.1f}")
        else:
            runs.append([])
    lines = "".join(f'<polyline points="{" ".join(run)}"/>' for run in runs)
    dots = "".join(
        f"<circle r=3 cx={at.split(',')[0]} cy={at.split(',')[1]} />" for run in runs for at in run
    )
    middle, bottom, right = WIDTH / 2, HEIGHT - MARGIN, WIDTH - MARGIN
    words = [
        (MARGIN - 4, MARGIN, "end", f"{high:.4g}"),
        (MARGIN - 4, bottom, "end", f"{low:.4g}"),
        (MARGIN, bottom + 18, "middle", f"{first:,}"),
        (right, bottom + 18, "middle", f"{last:,}"),
        (middle, bottom + 36, "middle", "labels"),
    ]
    texts = "".join(f'<text x={x} y={y} text-anchor="{a}">{said}</text>' for x, y, a, said in words)
    shape = f'width={WIDTH} height={HEIGHT} font-size=12 role="img" aria-label="{escape(name)}"'
    ink = f'<g fill="none" stroke="#1f6feb" stroke-width=2>{lines}</g><g fill="#1f6feb">{dots}</g>'
    axes = f'<path d="M{MARGIN},{MARGIN}V{bottom}H{right}" fill="none" stroke="#888"/>'
    svg = f"<svg {shape}>{axes}{ink}{texts}</svg>"
    return f"<figure><figcaption>{escape(name)}</figcaption>{svg}</figure>"


def _query(run_dir: Path, result: CycleResult) -> str:
    """Return what a cycle asked: its picture, and its first rows."""
    assert result.query is not None
    num, path = len(result.query.indices), run_dir / "queries" / f"cycle_{result.cycle}.csv"
    listed = "<p>Its table is not there.</p>"
    if path.exists():
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        where = f"<p>The first {NUM_ROWS} of {num:,} rows.</p>" if num > NUM_ROWS else ""
        listed = where + _table(header, rows[:NUM_ROWS])
    title = f"Cycle {result.cycle}, {result.num_labeled:,} labels: {num:,} rows asked"
    picture = _picture(path.with_suffix(".png"))
    return f"<h3>{title}</h3>{picture}<details><summary>Rows</summary>{listed}</details>"


def _picture(path: Path) -> str:
    if not path.exists():
        return ""
    if path.stat().st_size > MAX_PICTURE:
        return f"<p>The picture is larger than this page takes: {escape(path.name)}</p>"
    packed = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="The first rows of the query" src="data:image/png;base64,{packed}">'


def _configuration(run_dir: Path, records: Sequence[Record]) -> str:
    """Return the configuration: the command line's, or what the journal holds of a call's."""
    if (run_dir / CONFIG).exists():
        return (run_dir / CONFIG).read_text(encoding="utf-8", errors="replace")
    config = json.loads(json.dumps(records[0]["config"]))
    for names in ("fingerprint", "test_fingerprint"):  # checksums of rows
        config.get("data", {}).pop(names, None)
    text: str = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return text


def _versions() -> Iterable[Sequence[str]]:
    yield "Python", platform.python_version()
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed as a package"
    yield "System", platform.platform()


def _table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Return an HTML table; numbers are shortened."""
    head = "".join(f"<th>{escape(as_shown(cell))}</th>" for cell in header)
    lines = [
        "".join(
            f"<td>{f'{cell:.4f}' if isinstance(cell, float) else escape(as_shown(cell))}</td>"
            for cell in row
        )
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"
