"""The plots of the page. Transparent; the page brightens them on black. matplotlib's objects, no pyplot."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from PIL import Image

from scm_distill.artifacts.evaluation_record import Row
from scm_distill.artifacts.run_records import BUCKETS
from scm_distill.report.pictures import Picture, picture
from scm_distill.report.run_folder import Run
from scm_distill.report.verdict import baseline, number

SIZE, DPI = (5.0, 2.9), 192  # inches; two dots a CSS pixel
INK, RULE = "#6a7380", "#6a738050"  # text; grid
STUDENT, TEACHER, LIGHT = "#3584d8", "#dd8420", "#74a5dc"
TIMES = ("#6a5acd", "#2b8fae", "#36a469", "#a59a2c")  # the buckets of t, from data to noise
COLORS = 96  # of a plot's PNG
FEWEST, POINTS = 5, 150  # steps that make a curve; points that are drawn of one
Draw = Callable[[Axes], None]
Endpoint = Literal["rmse", "one_step", "two_steps"]


def plot(draw: Draw, alt: str, *, x: str, y: str) -> Picture:
    """One plot: `draw` puts the curves on the axes, whose labels are `x` and `y`."""
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="none")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.145, 0.165, 0.84, 0.725), facecolor="none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(RULE)
    draw(axes)
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.yaxis.set_label_coords(-0.125, 0.5)
    axes.tick_params(which="both", labelsize=8.5, labelcolor=INK, color=RULE, length=3)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles, labels, ncols=4, loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, fontsize=8.5,
            labelcolor=INK, handlelength=1.6, handletextpad=0.5, columnspacing=1.1, borderaxespad=0.3,
        )  # fmt: skip
    canvas.draw()  # type: ignore[no-untyped-call]
    image = Image.fromarray(np.asarray(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]
    return picture(image.quantize(COLORS, method=Image.Quantize.FASTOCTREE), alt)


def thinned(values: np.ndarray, points: int = POINTS) -> list[np.ndarray]:
    """(N, ...) in at most `points` groups of neighbours."""
    return np.array_split(values, min(points, len(values)))


def _steps(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _logarithmic(axes: Axes) -> None:
    """A log y axis with plain figures; with some between the powers of ten where few of those are shown."""
    axes.set_yscale("log")
    _plain(axes.yaxis, *axes.get_ylim())


def _plain(axis: Axis, low: float, high: float) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    minor = FuncFormatter(lambda value, _: _tick(value) if f"{value:e}"[0] in "25" else "")
    axis.set_minor_formatter(minor if high / low < 30 else NullFormatter())


def _tick(value: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e4 else f"{value:,.4g}"


def _warmup(axes: Axes, run: Run) -> None:
    """Shade the steps of the tangent's warm-up."""
    end = min(run.recipe.objective.warmup_steps, run.step)
    if end:
        axes.axvspan(0, end, color=INK, alpha=0.09, linewidth=0, label="tangent warm-up")


def course(run: Run, name: Literal["loss", "grad_norm"], title: str, *, limit: float | None = None) -> Picture | None:
    """A figure of every step: the median of neighbouring steps, and the range of the middle 80 % of them.

    `title` names the figure on its axis; `limit` is a line across. None where too few steps are finite.
    """
    found = {line.step: line.loss if name == "loss" else line.grad_norm for line in run.steps}
    steps, values = np.array(list(found)), np.array(list(found.values()))
    steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
    if len(values) < FEWEST:
        return None
    x = [part.mean() for part in thinned(steps)]
    low, middle, high = np.array([np.quantile(part, (0.1, 0.5, 0.9)) for part in thinned(values)]).T

    def draw(axes: Axes) -> None:
        _warmup(axes, run)
        axes.fill_between(x, low, high, color=STUDENT, alpha=0.22, linewidth=0)
        axes.plot(x, middle, color=STUDENT, linewidth=1.6, label="median of steps")
        if limit is not None and limit < 3 * high.max():
            axes.axhline(limit, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"clipped at {limit:g}")
        if low.min() > 0 and high.max() / low.min() > 20:
            _logarithmic(axes)
        _steps(axes)

    alt = (
        f"{title} over {len(values):,} steps: from {number(middle[0])} to {number(middle[-1])}, "
        f"between {number(middle.min())} and {number(middle.max())}."
    )
    return plot(draw, alt, x="training step", y=title)


def by_time(run: Run, name: Literal["tangent", "gap"], title: str) -> Picture | None:
    """A figure of every step in the four buckets of t; None where there are too few steps, or no figures."""
    edges = [f"{edge:g}" for edge in BUCKETS]
    names = [f"t < {edges[0]}", *(f"{a} to {b}" for a, b in pairwise(edges)), f"t > {edges[-1]}"]
    found = {line.step: line.tangent if name == "tangent" else line.gap for line in run.steps}
    found = {step: buckets for step, buckets in found.items() if len(buckets) == len(names)}
    if len(found) < FEWEST:
        return None
    steps = [float(part.mean()) for part in thinned(np.array(list(found)))]
    values = np.array(list(found.values()), dtype=float)  # None becomes NaN
    curves = [
        [float(np.mean(finite)) if len(finite := part[np.isfinite(part)]) else np.nan for part in thinned(column)]
        for column in values.T
    ]

    if not np.isfinite(curves).any():
        return None

    def draw(axes: Axes) -> None:
        for label, color, curve in zip(names, TIMES, curves, strict=True):
            axes.plot(steps, curve, color=color, linewidth=1.5, label=label)
        if np.nanmin(curves) > 0:
            _logarithmic(axes)
        _steps(axes)

    last = ", ".join(f"{label}: {number(curve[-1])}" for label, curve in zip(names, curves, strict=True))
    return plot(
        draw, f"{title} over {len(found):,} steps by time t in radians; at the end {last}.", x="training step", y=title
    )


def quality(run: Run, figures: Mapping[Endpoint, str], title: str) -> Picture | None:
    """Figures of the training's evaluations, by the name to show, and the undistilled teacher's.

    None where fewer than two evaluations have them all.
    """
    found = [line for line in run.evaluations if _finite(getattr(line.student, key) for key in figures)]
    if len(found) < 2:
        return None
    steps = [line.step for line in found]
    curves = {key: [getattr(line.student, key) for line in found] for key in figures}
    teacher = {key: getattr(found[-1].teacher, key) for key in figures}

    def draw(axes: Axes) -> None:
        for i, (key, name) in enumerate(figures.items()):
            axes.plot(
                steps, curves[key], label=f"student, {name}" if i == 0 else name, color=(STUDENT, LIGHT)[i],
                marker="os"[i], markersize=4, linewidth=1.6,
            )  # fmt: skip
        for i, (key, name) in enumerate(figures.items()):
            if math.isfinite(teacher[key]):
                axes.axhline(
                    teacher[key], label=f"teacher, {name}" if i == 0 else name, color=TEACHER,
                    linestyle=((0, (4, 3)), (0, (1, 2)))[i], linewidth=1.4,
                )  # fmt: skip
        if min(value for curve in curves.values() for value in curve) > 0:
            _logarithmic(axes)
        _steps(axes)

    ends = "; ".join(
        f"{name}: student {number(curves[key][0])} at step {steps[0]:,}, {number(curves[key][-1])} at step "
        f"{steps[-1]:,}, undistilled teacher {number(teacher[key])}"
        for key, name in figures.items()
    )
    return plot(draw, f"{title} by training step. {ends}.", x="training step", y=title)


def _finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))


def search(run: Run) -> Picture | None:
    """Distance to the data by t_mid, with the chosen one; None where fewer than two were measured."""
    tried = sorted(run.search.search, key=lambda one: one.t_mid) if run.search else []
    tried = [one for one in tried if _finite((one.t_mid, one.distance))]
    if run.search is None or len(tried) < 2:
        return None
    chosen = run.search.chosen
    times, distances = [one.t_mid for one in tried], [one.distance for one in tried]
    best = min(tried, key=lambda one: abs(one.t_mid - chosen))
    teacher = baseline(run)

    def draw(axes: Axes) -> None:
        axes.plot(times, distances, color=STUDENT, marker="o", markersize=4, linewidth=1.6, label="student, 2 steps")
        axes.plot(
            best.t_mid, best.distance, "o", color="none", markeredgecolor=STUDENT, markersize=11,
            markeredgewidth=1.6, label="chosen",
        )  # fmt: skip
        if teacher and math.isfinite(teacher.distance) and teacher.distance > 0.2 * min(distances):
            label = f"teacher, {teacher.nfe} evaluations"
            axes.axhline(teacher.distance, color=TEACHER, linestyle=(0, (4, 3)), linewidth=1.3, label=label)
        if max(distances) > 20 * min(distances) > 0:
            _logarithmic(axes)

    alt = f"Distance to the data by t_mid, {len(tried)} tried; chosen {best.t_mid:.3g} at {number(best.distance)}."
    return plot(draw, alt, x="t_mid (radians)", y="distance to the data")


def against(rows: Sequence[Row], x: Literal["nfe", "ms_per_sample"], title: str) -> Picture | None:
    """Frechet distance against network evaluations or time, student and teacher; None for fewer than two points."""
    points = [(row.who, getattr(row, x), row.metrics.get("fd", math.nan), row.steps) for row in rows]
    points = [point for point in points if _finite(point[1:3]) and min(point[1:3]) > 0]
    if len(points) < 2:
        return None

    def draw(axes: Axes) -> None:
        for who, color, marker in (("student", STUDENT, "o"), ("teacher", TEACHER, "s")):
            curve = sorted(point[1:] for point in points if point[0] == who)
            if curve:
                axes.plot(
                    [cost for cost, _, _ in curve], [distance for _, distance, _ in curve], color=color, marker=marker,
                    markersize=5, linewidth=1.6, label=f"{who}, {', '.join(str(steps) for *_, steps in curve)} steps",
                )  # fmt: skip
        axes.set_xscale("log")
        axes.margins(0.07, 0.1)
        if x == "nfe":
            counts = sorted({point[1] for point in points})
            axes.set_xticks(counts, [f"{value:g}" for value in counts])
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            _plain(axes.xaxis, *axes.get_xlim())
        _logarithmic(axes)

    figures = "; ".join(f"{who} {cost:.3g}: {number(distance)}" for who, cost, distance, _ in points)
    return plot(draw, f"Fréchet distance by {title}. {figures}.", x=title, y="Fréchet distance")
