"""The soak as a picture: one panel for each series, over minutes. Needs matplotlib, the extra `soak`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

PANELS = (
    ("resident_bytes", "resident MiB", 2**20),
    ("open_files", "open files", 1),
    ("threads", "threads", 1),
    ("cpu_us_per_record", "µs of CPU a record", 1),
    ("ack_p99_ms", "ack p99 in ms", 1),
    ("log_bytes", "logs in MiB", 2**20),
)
"""Column, title and unit of each panel."""


def draw(samples: Sequence[Mapping[str, float]], path: Path) -> bool:
    """Draw samples as the soak takes them into a PNG; false when matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 8), layout="constrained")
    FigureCanvasAgg(figure)
    minutes = [one["seconds"] / 60 for one in samples]
    for axes, (column, title, unit) in zip(figure.subplots(3, 2, sharex=True).flat, PANELS, strict=True):
        values = [one[column] / unit for one in samples]
        axes.plot(minutes, values, linewidth=0.8)
        axes.set_title(title, fontsize=9)
        axes.set_ylim(0, 1.15 * max(values) or 1)
        axes.axvline(minutes[len(minutes) // 2], color="gray", linewidth=0.5, linestyle="dotted")
        axes.tick_params(labelsize=8)
    figure.supxlabel("minutes; behind the dotted line is what is judged", fontsize=9)
    figure.savefig(path, dpi=80)
    return True
