"""Charts: data in, matplotlib Figure out; what `table_plots`, `evaluation_plots` and others draw with."""

import re
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito's colours, which the colour-blind can tell apart; a word, a marker or a hatch always says the same.
COLORS = {"benign": "#0072B2", "melanoma": "#D55E00", "train": "#56B4E9", "test": "#E69F00"}
HATCHES = {"melanoma": "///", "test": "///"}
LINES = {"benign": "-", "melanoma": "--", "train": "-", "test": "--"}
GREY = "#555555"


class Chart(Figure):
    """A Figure that Jupyter shows where it ends a cell, and that pyplot does not hold: nothing has to be closed."""

    def _repr_png_(self) -> bytes:
        return encode_png(self)


def encode_png(fig: Figure, dpi: int = 100) -> bytes:
    """Returns a figure as the bytes of a PNG file; the same data give the same bytes."""
    buffer = BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return buffer.getvalue()


def plot_bars(panels: Mapping[str, Mapping[str, float]], title: str, source: str = "",
              show_shares: bool = True) -> Figure:
    """Returns one panel a mapping, one labelled bar a value.

    Args:
        panels: panel title -> name of the bar -> value; names of classes and splits get their own colour.
        title: names the question and n; this and the next hold for every chart.
        source: named small below the chart, such as "synthetic competition".
        show_shares: write the share of the panel's sum beside each count (int); other numbers (float) have none.
    """
    n_bars = max(len(values) for values in panels.values())
    label = max(1.5, 0.075 * max(len(str(name)) for values in panels.values() for name in values))  # inches
    fig, axes = new_figure(len(panels), (label + 3.2 * len(panels), 1.3 + 0.33 * n_bars), title, source)
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        total = max(1, sum(values.values()))
        draw_bars(ax, values, [f"{v:.3f}" if isinstance(v, float) else f"{v:,} ({format_share(v / total)})"
                                if show_shares else f"{v:,}" for v in values.values()])
        ax.set_title(name, fontsize=9)
        ax.set_xticks([])
    return fig







def plot_densities(df: pd.DataFrame, columns: Sequence[str], by: str, title: str, source: str = "") -> Figure:
    """Returns one panel a column with a violin a group; the lines are the quartiles.

    Args:
        df: (N, …) table.
        columns: the numeric columns to draw.
        by: the column that holds the group: "benign"/"melanoma" or "train"/"test".
        title, source: see `plot_bars`; n of the groups is on the axes.
    """
    fig, axes = new_figure(len(columns), (0.6 + 1.9 * len(columns), 3.4), title, source)
    groups = [group for group in COLORS if (df[by] == group).any()]
    for ax, column in zip(axes, columns, strict=True):
        values = [df.loc[df[by] == group, column].to_numpy() for group in groups]
        parts = ax.violinplot(values, widths=0.85, showextrema=False, quantiles=[[0.25, 0.5, 0.75]] * len(groups))
        parts["cquantiles"].set(color="black", linewidth=1)
        for body, group in zip(parts["bodies"], groups, strict=True):
            body.set(facecolor=COLORS[group], alpha=0.7, hatch=HATCHES.get(group))
        names = [f"{group}\nn = {len(v):,}" for group, v in zip(groups, values, strict=True)]
        ax.set_xticks(range(1, len(groups) + 1), names, fontsize=8)
        ax.set_title(column, fontsize=9)
    return fig


def plot_image_grid(images: Sequence[np.ndarray], titles: Sequence[str], n_columns: int = 6, title: str = "",
                    source: str = "") -> Figure:
    """Returns the images row by row, each under its title.

    Args:
        images: (height, width, 3) uint8 arrays, at least one.
        titles: one an image.
        n_columns: images a row.
        title, source: see `plot_bars`.

    Raises:
        ValueError: there is no image, or the numbers of images and titles differ.
    """
    if len(images) != len(titles) or not len(images):
        raise ValueError(f"{len(images)} images and {len(titles)} titles: give one title an image")
    n_columns = min(n_columns, len(images))
    n_rows = -(-len(images) // n_columns)
    fig, axes = new_figure(n_columns, (1.5 * n_columns, 1.68 * n_rows + 0.4), title, source, n_rows)
    for ax in axes:
        ax.axis("off")
    for ax, image, name in zip(axes, images, titles, strict=False):
        ax.imshow(image)
        ax.set_title(name, fontsize=8)
    return fig


def plot_learning_curves(history_df: pd.DataFrame, source: str = "") -> Figure:
    """Returns loss (dashed: train, solid: valid) and validation AUC by epoch, a line a fold.

    Args:
        history_df: columns fold, epoch, train_loss, valid_loss and valid_auc, one row an epoch of a fold.
        source: see `plot_bars`.
    """
    n_folds = history_df["fold"].nunique()
    fig, (left, right) = new_figure(2, (9, 3.6), f"Learning curves: {n_folds} fold{'s' * (n_folds > 1)}", source)
    for i, (fold, df) in enumerate(history_df.groupby("fold")):
        style = {"color": f"C{i % 10}", "marker": "osv^D*PX<>"[i % 10], "markersize": 4}
        left.plot(df["epoch"], df["train_loss"], linestyle="--", **style)
        left.plot(df["epoch"], df["valid_loss"], **style)
        right.plot(df["epoch"], df["valid_auc"], label=f"fold {fold}", **style)
    left.set(xlabel="epoch", ylabel="loss (dashed: train, solid: valid)")
    right.set(xlabel="epoch", ylabel="AUC on valid")
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
    fig.legend(loc="outside right center")
    return fig


def plot_intervals(df: pd.DataFrame, title: str, label: str, line: float | None = None, source: str = "") -> Figure:
    """Returns one row a value with its interval.

    Args:
        df: (N, …) table, its index naming the rows; columns value, low, high.
        title: names the question and n.
        label: of the axis.
        line: where a vertical line says "no difference" or "chance"; None for none.
        source: see `plot_bars`.
    """
    fig, (ax,) = new_figure(1, (7, 1.4 + 0.34 * len(df)), title, source)
    errors = [(df["value"] - df["low"]).clip(lower=0), (df["high"] - df["value"]).clip(lower=0)]  # -1e-16: rounded
    ax.errorbar(df["value"], range(len(df)), xerr=errors, fmt="o", color=COLORS["benign"], capsize=3)
    for row, (value, low, high) in enumerate(df[["value", "low", "high"]].itertuples(index=False)):
        text = f"{value:.3f} ({low:.3f} to {high:.3f})".replace("-", "−")
        ax.annotate(text, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    if line is not None:
        ax.axvline(line, color=GREY, linestyle="--")
    ax.set_yticks(range(len(df)), df.index)
    ax.set_ylim(len(df) - 0.5, -0.5)
    ax.margins(x=0.1)
    ax.set_xlabel(label)
    return fig


def plot_fold_balance(leak_df: pd.DataFrame, source: str = "") -> Figure:
    """Returns images, melanomas, patients and leak (share of images with their patient in train) of each fold.

    Args:
        leak_df: as returned by `folds.measure_patient_leak`.
        source: see `plot_bars`.
    """
    columns = {"n_images": "images", "n_melanomas": "melanomas", "n_patients": "patients", "leak": "leak (0 to 1)"}
    panels = {name: {f"fold {fold}": value for fold, value in leak_df[column].to_dict().items()}
              for column, name in columns.items()}
    return plot_bars(panels, f"{len(leak_df)} folds: {leak_df['n_images'].sum():,} images, "
                     f"{leak_df['n_melanomas'].sum():,} melanomas", source, show_shares=False)


def new_figure(n_columns: int, size: tuple[float, float], title: str, source: str,
               n_rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Returns an empty chart and its axes, row by row.

    Args:
        n_columns, n_rows: of axes.
        size: width and height in inches.
        title, source: see `plot_bars`.
    """
    fig = Chart(figsize=size, layout="constrained")
    axes = list(fig.subplots(n_rows, n_columns, squeeze=False).flat)
    fig.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    fig.supxlabel(source, x=0.99, ha="right", fontsize=8, color=GREY, style="italic")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
        ax.xaxis.label.set_fontsize(9)
        ax.yaxis.label.set_fontsize(9)
    return fig, axes


def draw_bars(ax: Axes, values: Mapping[str, float], labels: Sequence[str], color: str = "") -> None:
    """Draws labelled horizontal bars, the first on top, in one colour or in the colour of the class or split named."""
    for y, (name, value) in enumerate(values.items()):
        words = re.findall(r"\w+", str(name))
        key = next((key for key in COLORS if key in words), "")
        ax.barh(y, value, 0.7, color=color or COLORS.get(key, GREY), edgecolor="white",
                hatch=None if color else HATCHES.get(key))
        ax.annotate(labels[y], (value, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(labels)), list(map(str, values)))
    ax.invert_yaxis()
    ax.set_xlim(0, 1.55 * max(values.values()) or 1)
    ax.locator_params(axis="x", nbins=5)



def format_share(share: float) -> str:
    """Returns a share as per cent with as many digits as tell it from none and from all."""
    return f"{100 * share:.0f} %" if share in (0, 1) else f"{100 * share:.2f} %" if share < 0.1 or share > 0.99 \
        else f"{100 * share:.1f} %"
