"""Charts of the competition's tables: who has how many images, and how many of them are melanomas."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binomtest

from melanoma_utils.plots import COLORS, GREY, HATCHES, LINES, draw_bars, format_share, new_figure

MIN_IMAGES = 30  # a group with fewer gets its n, but no melanoma rate


def plot_melanoma_rate(df: pd.DataFrame, column: str, title: str, source: str = "",
                       is_narrow: bool = False) -> Figure:
    """Returns the number of images by value of a column, and the share of melanomas with Wilson's 95 % interval.

    Args:
        df: (N, …) table with the column and target. Categories keep their order, numbers ascend, words go from
            frequent to rare; empty values are a group of their own; groups below `MIN_IMAGES` get no rate.
        column: the column to group by.
        title, source: see `plots.plot_bars`; n is added to the title.
        is_narrow: the two below each other, as on a phone.
    """
    groups = df["target"].groupby(_name_groups(df[column]), observed=True).agg(["size", "sum"])
    height = 1.7 + 0.26 * len(groups)
    fig, (left, right) = new_figure(2 - is_narrow, (5, 2 * height) if is_narrow else (9, height),
                                    f"{title}: {len(df):,} images, {df['target'].sum():,} melanomas", source,
                                    1 + is_narrow)
    draw_bars(left, groups["size"].to_dict(), [f"{n:,}" for n in groups["size"]], GREY)
    for y, (n, k) in enumerate(zip(groups["size"], groups["sum"], strict=True)):
        low, high = binomtest(int(k), int(n)).proportion_ci(method="wilson") if n >= MIN_IMAGES else (0, 0)
        text = f"{100 * k / n:.2f} ({k:,})" if n >= MIN_IMAGES else f"fewer than {MIN_IMAGES} images"
        if n >= MIN_IMAGES:
            right.plot([100 * low, 100 * high], [y, y], color=GREY)
            right.plot(100 * k / n, y, "o", color=COLORS["melanoma"])
        right.annotate(text, (100 * high, y), (6, 0), textcoords="offset points", va="center", fontsize=8,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    right.axvline(100 * df["target"].mean(), color=GREY, linestyle=":", linewidth=1)
    right.set(ylim=left.get_ylim(), xlabel=f"melanomas, % (and number; dotted: all, {100 * df['target'].mean():.2f} %)")
    right.set_yticks(range(len(groups)), left.get_yticklabels() if is_narrow else [])
    right.set_xlim(0, 1.45 * right.dataLim.x1 or 1)  # without any melanoma the ends would be the same
    left.set_xlabel("images")
    return fig


def plot_rate_heatmap(df: pd.DataFrame, row: str, column: str, title: str, source: str = "") -> Figure:
    """Returns the melanoma rate by two columns, a shaded cell a pair, with its counts (below `MIN_IMAGES` only n).

    Args:
        df: (N, …) table with both columns and target; empty values are a group of their own.
        row, column: the columns to group by.
        title, source: see `plots.plot_bars`; n is added to the title.
    """
    pairs = {"index": _name_groups(df[row]), "columns": _name_groups(df[column]), "values": df["target"]}
    n = pd.crosstab(pairs["index"], pairs["columns"])
    rate = 100 * pd.crosstab(**pairs, aggfunc="mean").where(n >= MIN_IMAGES)
    fig, (ax,) = new_figure(1, (2.6 + 1.5 * n.shape[1], 1.4 + 0.42 * len(n)), f"{title}: {len(df):,} images", source)
    shades = ax.imshow(rate.to_numpy(), cmap="Oranges", aspect="auto", vmin=0)
    for (y, x), count in np.ndenumerate(n.to_numpy()):
        value = rate.iloc[y, x]
        text = f"{count:,} images" if count else ""
        if count >= MIN_IMAGES:
            text = f"{value:.1f} %\n{value * count / 100:,.0f} of {count:,}"
        ax.text(x, y, text, ha="center", va="center", fontsize=8, color="w" if value > 0.6 * shades.norm.vmax else "k")
    ax.set_xticks(range(n.shape[1]), n.columns)
    ax.set_yticks(range(len(n)), n.index)
    fig.colorbar(shades, ax=ax, label="melanomas, %")
    return fig


def plot_shares(panels: Mapping[str, pd.DataFrame], title: str, source: str = "") -> Figure:
    """Returns train beside test: one panel a table, a pair of bars a row.

    Args:
        panels: panel title -> table with the columns train and test, shares in 0..1.
        title, source: see `plots.plot_bars`.
    """
    n_rows = max(len(table) for table in panels.values())
    fig, axes = new_figure(len(panels), (1.5 + 3.2 * len(panels), 1.7 + 0.36 * n_rows), title, source)
    for ax, (name, table) in zip(axes, panels.items(), strict=True):
        for offset, split in ((-0.2, "train"), (0.2, "test")):
            bars = ax.barh(np.arange(len(table)) + offset, 100 * table[split], 0.38, color=COLORS[split],
                           hatch=HATCHES.get(split), edgecolor="white", label=split)
            ax.bar_label(bars, [format_share(share) for share in table[split]], padding=2, fontsize=7)
        ax.set_yticks(range(len(table)), table.index)
        ax.invert_yaxis()
        ax.margins(x=0.25)
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("%")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=8)
    return fig


def plot_images_per_patient(counts: Mapping[str, Sequence[int]], title: str, source: str = "") -> Figure:
    """Returns by split the share of patients with at least so many images, on logarithmic axes.

    Args:
        counts: "train" and "test" -> number of images of each patient.
        title, source: see `plots.plot_bars`.
    """
    fig, (ax,) = new_figure(1, (7, 3.8), title, source)
    for split, values in counts.items():
        n = np.sort(np.asarray(values))
        label = f"{split}: {len(n):,} patients, {n[0]} to {n[-1]} images, median {np.median(n):g}"
        ax.step(n, 100 * (1 - np.arange(len(n)) / len(n)), LINES[split], where="pre", color=COLORS[split], label=label)
    ax.set(xscale="log", yscale="log", xlabel="images of a patient, at least", ylabel="patients, %")
    ax.set_xticks([1, 2, 5, 10, 20, 50, 100, 200])
    ax.minorticks_off()
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
    ax.legend(loc="lower left")
    return fig


def plot_image_sizes(sizes_df: pd.DataFrame, title: str, source: str = "") -> Figure:
    """Returns width against height of the images, one marker a size, larger for more frequent ones.

    Args:
        sizes_df: (N, …) table with the columns split ("train", "test"), width and height (pixels).
        title, source: see `plots.plot_bars`.
    """
    fig, (ax,) = new_figure(1, (6.5, 4), title, source)
    for split, marker in (("train", "o"), ("test", "s")):
        if not (sizes_df["split"] == split).any():
            continue
        sizes = sizes_df[sizes_df["split"] == split].value_counts(["width", "height"], normalize=True)
        width, height = np.array(sizes.index.to_list()).reshape(-1, 2).T
        ax.scatter(width, height, 20 + 300 * sizes, marker=marker, facecolor="none", edgecolor=COLORS[split],
                   linewidth=2, label=f"{split}: most often {width[0]}×{height[0]}, number of sizes: {len(sizes)}")
    end = 1.15 * sizes_df[["width", "height"]].to_numpy().max()
    ax.axline((0, 0), slope=1, color=GREY, linestyle=":", linewidth=1)
    ax.set(xlim=(0, end), ylim=(0, end), xlabel="width, pixels (dotted: square)", ylabel="height, pixels")
    fig.legend(loc="outside lower left", markerscale=0.5, fontsize=8)
    return fig


def _name_groups(values: pd.Series) -> pd.Series:
    """Returns the values as ordered categories of words, the missing ones last as "(missing)"."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        order = list(values.cat.categories)
    elif pd.api.types.is_numeric_dtype(values):
        order = sorted(values.dropna().unique())
    else:
        order = list(values.value_counts().index)
    words = {value: f"{value:g}" if isinstance(value, float) else str(value) for value in order}
    named = values.astype(object).map(words).astype(object).fillna("(missing)")
    groups = list(dict.fromkeys([*words.values(), "(missing)"]))  # 45.38264 and 45.38262 are both 45.3826
    return pd.Series(pd.Categorical(named, groups, ordered=True), values.index)
