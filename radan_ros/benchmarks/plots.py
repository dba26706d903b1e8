"""Plots of the benchmarks, by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from radan_ros.files import write_atomically

if TYPE_CHECKING:
    from radan_ros.benchmarks.speed import Row

Errors = tuple[NDArray[np.float64], NDArray[np.float64]]  # percent (N,) or (N, D); yaw in degrees (N,)

_STAGES_WITH_SIZES = ("network", "reconstruction", "rendering")
_RATIOS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def check_matplotlib() -> None:
    """ImportError that says what to install, where matplotlib is not."""
    if find_spec("matplotlib") is None:
        raise ImportError("the plots need matplotlib: pip install matplotlib")


def draw_errors(path: Path, panels: Mapping[str, Mapping[str, Errors]]) -> None:
    """Cumulative error curves, and errors over yaw with their means in 15 degrees; one row for each set of faces.

    Parameters
    ----------
    path : Path
        A .png file.
    panels : dict of dict of (errors, yaw)
        By title, by what is compared: errors in percent (N,), or (N, D) for D answers a face, and yaw in degrees (N,).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 2, squeeze=False)
    ends = np.arange(-90, 91, 15)
    for (curve, over_yaw), (title, series) in zip(axes, panels.items(), strict=True):
        drawn = [np.asarray(errors, np.float64) for errors, _ in series.values()]
        largest = max(10.0, 2.5 * max((float(np.nanmedian(e)) for e in drawn if np.isfinite(e).any()), default=0.0))
        for number, (name, (errors, yaw)) in enumerate(series.items()):
            percent = np.asarray(errors, np.float64)
            curve.plot(*cumulative(percent), color=f"C{number}", label=name)
            each = percent.reshape(len(percent), -1).mean(axis=1)
            over_yaw.scatter(yaw, each, s=6, alpha=0.35, color=f"C{number}", linewidths=0)
            place = np.digitize(yaw, ends)
            means = [
                (low + 7.5, float(np.nanmean(each[place == i])))
                for i, low in enumerate(ends, 1)
                if np.isfinite(each[place == i]).sum() > 2
            ]
            if means:
                over_yaw.plot(*zip(*means, strict=True), color=f"C{number}", marker="o")
        curve.set(xlim=(0, largest), ylim=(0, 1), xlabel="NME, %", ylabel="share of faces", title=title)
        over_yaw.set(xlim=(-90, 90), ylim=(0, 1.2 * largest), xlabel="yaw, degrees", ylabel="NME, %")
        over_yaw.set_xticks(range(-90, 91, 30))
        for axis in (curve, over_yaw):
            axis.grid(alpha=0.3)
        curve.legend(loc="lower right")
    _save(figure, path)


def cumulative(errors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Errors in rising order, and the share of all that are up to each: those without one (NaN) keep it below 1."""
    ordered = np.sort(errors[np.isfinite(errors)])
    return ordered, np.arange(1, ordered.size + 1) / errors.size


def draw_speed(path: Path, rows: Sequence[Row]) -> None:
    """Times over batch or size, and how many times as long the plain implementation takes (median, least and most)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8 + 0.12 * len(rows)), layout="constrained")
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 1.25))
    for place, stage in enumerate(_STAGES_WITH_SIZES):
        axis = figure.add_subplot(grid[place, 0])
        mine = [row for row in rows if row.stage == stage]
        names = list(dict.fromkeys((row.name, row.device) for row in mine))
        for number, (name, device) in enumerate(names):
            of_name = [row for row in mine if (row.name, row.device) == (name, device)]
            x = np.array([row.size for row in of_name])
            spread = np.array([row.ours.values() for row in of_name])
            label = f"{name}, {device}"
            axis.plot(x, spread[:, 1], color=f"C{number}", marker="o", label=label)
            axis.fill_between(x, spread[:, 0], spread[:, 2], color=f"C{number}", alpha=0.2, linewidth=0)
            plain = [(row.size, row.plain.median) for row in of_name if row.plain is not None]
            if plain:
                axis.plot(*zip(*plain, strict=True), color=f"C{number}", linestyle=":", marker=".", alpha=0.7)
        sizes = sorted({row.size for row in mine})
        axis.set(xscale="log", yscale="log", ylabel="ms", title=f"{stage} (dotted: plain)")
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
        axis.minorticks_off()
        axis.set_xlabel(mine[0].unit if mine else "")
        axis.grid(alpha=0.3)
        if names:
            bottom, top = axis.get_ylim()
            axis.set_ylim(bottom, top * (top / bottom) ** (0.1 * len(names)))  # room for the legend above the lines
            axis.legend(fontsize=8, loc="upper left")
    _draw_ratios(figure.add_subplot(grid[:, 1]), [row for row in rows if row.ratio is not None])
    _save(figure, path)


def _draw_ratios(axis: Any, rows: Sequence[Row]) -> None:
    low, middle, high = (np.array([row.ratio.values()[i] for row in rows if row.ratio]) for i in range(3))
    places = np.arange(len(rows))
    stages = list(dict.fromkeys(row.stage for row in rows))
    axis.barh(
        places,
        middle - 1,
        left=1,
        xerr=[middle - low, high - middle],
        color=[f"C{stages.index(row.stage)}" for row in rows],
        alpha=0.8,
        ecolor="black",
        capsize=2,
    )
    axis.axvline(1, color="black", linewidth=1)
    axis.set_yticks(places, [row.label for row in rows], fontsize=8)
    axis.set(xscale="log", xlabel="times as long as ours", title="the plain implementation in the same run")
    axis.set_xticks(_RATIOS, [f"{ratio:g}" for ratio in _RATIOS])
    axis.minorticks_off()
    axis.set_xlim(min(0.8, 0.9 * low.min(initial=1)), max(10, 1.2 * high.max(initial=1)))
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(alpha=0.3, axis="x")


def _save(figure: Any, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, dpi=100, format="png")
    write_atomically(path, content.getvalue())
