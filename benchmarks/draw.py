"""Draws the result files of this folder's benchmarks as charts, an SVG and a PNG beside each JSON.

    python benchmarks/draw.py [FILE.json ...]

Needs matplotlib: `pip install 'jaxft[bench]'`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
# Nothing of the day or the process goes into a file: the same results draw the same bytes.
matplotlib.rcParams.update({"svg.hashsalt": "jaxft", "svg.fonttype": "none", "font.size": 10, "font.family": "DejaVu Sans"})

import results  # noqa: E402
from compare import run  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: E402
from workloads import PARTS  # noqa: E402

#: Okabe & Ito's colours, which the colour-blind tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#5F6B76"
COLOURS = {"train": BLUE, "head": ORANGE, "eval": GREEN}
WORDS = {"train": "training step", "head": "head-only training", "eval": "inference"}
RIVALS = {"torch": "PyTorch", "flax": "plain Flax", "keras": "Keras on JAX"}


def ratios(rows: Sequence[dict[str, Any]]) -> Any:
    """Horizontal bars of ratios in one panel for each rival, the quartiles as whiskers, and a line at 1."""
    rivals = list(dict.fromkeys(rival for row in rows for rival in row["ratio"]))
    workloads = list(dict.fromkeys((row["workload"], row["batch"]) for row in rows))
    height = 1.6 + 0.82 * len(workloads)
    figure, axes = plt.subplots(1, len(rivals), figsize=(8.2 if len(rivals) == 1 else 10.5, height), squeeze=False, sharey=True)
    for axis, rival in zip(axes[0], rivals, strict=True):
        _bars(axis, rival, rows, workloads)
    axes[0][0].set_yticks(range(len(workloads)), [_label(*workload, rows) for workload in workloads])
    axes[0][0].invert_yaxis()
    names = " and ".join(RIVALS[rival] for rival in rivals)
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[part]) for part in PARTS]
    labels = [WORDS[part] for part in PARTS]
    _finish(figure, f"Images per second of jaxft over {names}", rows, "medians, whiskers are quartiles", handles, labels)
    return figure


def _bars(axis: Any, rival: str, rows: Sequence[dict[str, Any]], workloads: Sequence[tuple[str, int]]) -> None:
    thick = 0.26
    highest = max((row["ratio"][rival]["q3"] for row in rows if rival in row["ratio"]), default=1.0)
    for row in rows:
        ratio = row["ratio"].get(rival)
        if ratio is None:
            continue
        place = workloads.index((row["workload"], row["batch"])) + (PARTS.index(row["part"]) - 1) * thick
        whiskers = [[ratio["median"] - ratio["q1"]], [ratio["q3"] - ratio["median"]]]
        axis.barh(place, ratio["median"], thick * 0.9, color=COLOURS[row["part"]])
        axis.errorbar(ratio["median"], place, xerr=whiskers, color="#222222", capsize=2, linewidth=1)
        text = f"{ratio['median']:.2f}" if ratio["median"] < 10 else f"{ratio['median']:.0f}"
        axis.annotate(text, (ratio["q3"], place), (5, 0), textcoords="offset points", va="center", fontsize=9)
    axis.axvline(1, color="#222222", linewidth=1.2)
    axis.annotate(
        "equal", (1, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8, color=GREY
    )
    axis.set_xlim(0, max(highest * 1.14, 1.15))
    axis.set_xlabel(f"times {RIVALS[rival]}'s images/s (right of the line jaxft is faster)", color=GREY)
    _plain(axis, "x")


def _label(workload: str, batch: int, rows: Sequence[dict[str, Any]]) -> str:
    row = next(row for row in rows if (row["workload"], row["batch"]) == (workload, batch))
    return f"{row['model']}\n{row['size']} px, batch {batch}"


def cost(rows: Sequence[dict[str, Any]]) -> Any:
    """Milliseconds an image by batch, a line for each size, a panel for each part."""
    parts = [part for part in PARTS if any(row["part"] == part for row in rows)]
    sizes = sorted({row["size"] for row in rows})
    figure, axes = plt.subplots(1, len(parts), figsize=(3.6 * len(parts) + 1.2, 4.6), squeeze=False, sharey=True)
    shades = plt.get_cmap("viridis")
    for axis, part in zip(axes[0], parts, strict=True):
        for number, size in enumerate(sizes):
            points = sorted(
                (row["batch"], 1000 * row["seconds_per_image"]["median"])
                for row in rows
                if (row["part"], row["size"]) == (part, size)
            )
            colour = shades(0.78 * number / max(len(sizes) - 1, 1))
            if points:
                axis.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4)
                label = f"{size} px"
                axis.annotate(label, points[-1], (6, 0), textcoords="offset points", va="center", fontsize=9, color=colour)
        batches = sorted({row["batch"] for row in rows})
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(batches, [str(batch) for batch in batches])
        axis.set_xlim(batches[0] / 1.4, batches[-1] * 3.6)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_title(WORDS[part], fontsize=11)
        axis.set_xlabel("batch")
        _plain(axis, "both")
    axes[0][0].set_ylabel("milliseconds an image")
    models = ", ".join(dict.fromkeys(row["model"] for row in rows))
    _finish(figure, f"What an image costs: {models}", rows, "medians")
    return figure


def methods(record: Mapping[str, Any]) -> Any:
    """Accuracy by method, a panel for each data set and a colour for each number of pictures; last what a step costs."""
    rows, costs = record["rows"], record["costs"]
    names, datasets, counts = (list(dict.fromkeys(row[key] for row in rows)) for key in ("method", "data", "per_class"))
    height, widths = 1.5 + 0.42 * len(names), [3.0] * len(datasets) + [1.7]
    figure, axes = plt.subplots(1, len(widths), figsize=(13, height), sharey=True, width_ratios=widths)
    colours = (BLUE, ORANGE, GREEN)
    for axis, data in zip(axes, datasets, strict=False):
        for (place, name), (number, count) in itertools.product(enumerate(names), enumerate(counts)):
            cell = (data, count, name)
            found = [100 * row["accuracy"] for row in rows if (row["data"], row["per_class"], row["method"]) == cell]
            if found:
                y = place + 0.18 * (number - (len(counts) - 1) / 2)
                axis.plot([min(found), max(found)], [y, y], color=colours[number], linewidth=1.4, alpha=0.6)
                axis.plot(statistics.mean(found), y, "o", color=colours[number], markersize=5)
        axis.set_title(data, fontsize=11)
        axis.set_xlabel("test accuracy, %", color=GREY)
        _plain(axis, "both")
    _step_costs(axes[-1], names, costs)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=colour) for colour in colours[: len(counts)]]
    labels = [f"{count} pictures a class" for count in counts]
    seeds = len({row["seed"] for row in rows})
    about = f"means of {seeds} draws of the training pictures, lines from the worst to the best"
    _finish(figure, "Ways to fine-tune EfficientNet-Lite0 with few labels", [record["conditions"]], about, handles, labels)
    return figure


def _step_costs(axis: Any, names: Sequence[str], costs: Mapping[str, Mapping[str, float]]) -> None:
    for place, name in enumerate(names):
        if name not in costs:
            continue
        found = costs[name]
        axis.barh(place, found["ratio"], 0.5, color=GREY)
        text = f"{found['ratio']:.1f}x, {found['memory'] / 2**20:.0f} MB\n{results.percent(found['trained'])} trained"
        axis.annotate(text, (found["ratio"], place), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    axis.set_title("a step", fontsize=11)
    axis.set_xlabel("times the head's", color=GREY)
    axis.set_xlim(0, 2.0 * max((found["ratio"] for found in costs.values()), default=1.0))
    _plain(axis, "x")


def _plain(axis: Any, grid: str) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color="#DDE1E5", linewidth=0.7)
    axis.set_axisbelow(True)


def _finish(
    figure: Any,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    what: str,
    handles: Sequence[Any] = (),
    labels: Sequence[str] = (),
) -> None:
    """The title, a legend under it, and at the foot what was measured on, when, and `what` is drawn."""
    inches = figure.get_figheight()
    figure.text(0.02, 1 - 0.28 / inches, title, fontsize=13, weight="bold")
    if handles:
        place = (0.02, 1 - 0.38 / inches)
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=place, ncols=3, frameon=False, borderaxespad=0)
    seen = {key: list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("cpu", "threads", "date")}
    dates = seen["date"][0] if len(seen["date"]) == 1 else f"{min(seen['date'])} to {max(seen['date'])}"
    foot = f"{' and '.join(seen['cpu'])}, {' and '.join(seen['threads'])} threads, float32, {dates}; {what}"
    figure.text(0.02, 0.1 / inches, foot, fontsize=8, color=GREY)
    top = 1 - (0.62 if handles else 0.36) / inches
    figure.tight_layout(rect=(0, 0.25 / inches, 1, top))


def draw(path: Path) -> list[Path]:
    """Draws one result file as PATH.svg and PATH.png; returns both."""
    record = results.read(path)
    rows = record["rows"]
    if "costs" in record:
        figure = methods(record)
    else:
        figure = cost(rows) if "seconds_per_image" in rows[0] else ratios(rows)
    written = []
    for suffix in (".svg", ".png"):
        written.append(path.with_suffix(suffix))
        figure.savefig(written[-1], dpi=150, facecolor="white", metadata={"Date": None} if suffix == ".svg" else None)
    plt.close(figure)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description="Draws result files as SVG and PNG.")
    parser.add_argument(
        "files", nargs="*", type=Path, help="without any: the comparisons, the costs and the methods in benchmarks/results/"
    )
    drawn = [path for name in ("vs_*", "cost_*", "methods") for path in results.RESULTS.glob(f"{name}.json")]
    for path in parser.parse_args().files or sorted(drawn):
        print(*draw(path), sep="\n")
    return 0


if __name__ == "__main__":
    run(main)
