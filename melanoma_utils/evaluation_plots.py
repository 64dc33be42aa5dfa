"""Charts of an evaluation: data in, matplotlib Figure out."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from sklearn.metrics import roc_curve

from melanoma_utils.plots import COLORS, GREY, HATCHES, LINES, new_figure

STYLES = (("o", "--", COLORS["melanoma"]), ("s", "-", COLORS["benign"]), ("^", "-.", COLORS["train"]))


def plot_roc(targets: np.ndarray, scores: np.ndarray, auc: float, low: float, high: float,
             folds: np.ndarray | None = None, source: str = "") -> Figure:
    """Returns the pooled ROC curve with its AUC and interval; thin curves for the folds where they are given.

    Args:
        targets: (N,) of 0 or 1.
        scores: (N,), higher = more like melanoma.
        auc, low, high: the pooled AUC and the ends of its interval.
        folds: (N,) fold of each image; a fold of one class has no curve.
        source: see `plots.plot_bars`.

    Raises:
        ValueError: the targets hold one class only.
    """
    targets, scores = _check_classes(targets), np.asarray(scores)
    fig, (ax,) = new_figure(1, (5, 5), f"ROC: {len(targets):,} images, {targets.sum():,} melanomas", source)
    in_folds = [] if folds is None else [np.asarray(folds) == fold for fold in np.unique(folds)]
    in_folds = [is_in for is_in in in_folds if len(np.unique(targets[is_in])) == 2]
    for i, is_in in enumerate(in_folds):
        ax.plot(*roc_curve(targets[is_in], scores[is_in])[:2], color=GREY, linewidth=0.6, alpha=0.7,
                label=None if i else f"each of {len(in_folds)} folds")
    ax.plot(*roc_curve(targets, scores)[:2], color=COLORS["melanoma"], linewidth=2,
            label=f"all: AUC {auc:.3f} ({low:.3f} to {high:.3f})")
    ax.plot([0, 1], [0, 1], ":", color="black", linewidth=1, label="chance")
    ax.set(xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    ax.legend(loc="lower right")
    return fig


def plot_fold_aucs(fold_auc: Mapping[int, float], auc: float, low: float, high: float, source: str = "") -> Figure:
    """Returns the AUC of each fold beside the pooled one and its interval.

    Args:
        fold_auc: AUC by the fold's number.
        auc, low, high: the pooled AUC and the ends of its interval.
        source: see `plots.plot_bars`.
    """
    fig, (ax,) = new_figure(1, (7, 1.8 + 0.24 * len(fold_auc)), f"AUC by fold, n = {len(fold_auc)}", source)
    ax.axvspan(low, high, color=COLORS["melanoma"], alpha=0.2, label=f"pooled {auc:.3f} ({low:.3f} to {high:.3f})")
    ax.axvline(auc, color=COLORS["melanoma"])
    for row, value in enumerate(fold_auc.values()):
        ax.plot(value, row, "o", color=COLORS["benign"])
        ax.annotate(f"{value:.3f}", (value, row), (6, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(fold_auc)), [f"fold {fold}" for fold in fold_auc])
    ax.set_ylim(len(fold_auc) - 0.5, -0.5)
    ax.margins(x=0.2)
    ax.set_xlabel("AUC")
    fig.legend(loc="outside lower left")
    return fig


def plot_score_histogram(targets: np.ndarray, probs: np.ndarray, source: str = "") -> Figure:
    """Returns the distribution of the probabilities of each class, each class summing to 100 %.

    Args:
        targets: (N,) of 0 or 1.
        probs: (N,) probabilities, 0..1.
        source: see `plots.plot_bars`.

    Raises:
        ValueError: the targets hold one class only.
    """
    targets, probs = _check_classes(targets), np.asarray(probs)
    fig, (ax,) = new_figure(1, (7, 3.4), f"Probabilities by class: {len(targets):,} images", source)
    for target, name in enumerate(("benign", "melanoma")):
        values = probs[targets == target]
        ax.hist(values, np.linspace(0, 1, 41), weights=np.full(len(values), 100 / len(values)), histtype="step",
                linewidth=2, linestyle=LINES[name], color=COLORS[name], label=f"{name}, n = {len(values):,}")
    ax.set(xlabel="probability of melanoma", ylabel="% of the class", xlim=(0, 1))
    ax.legend(loc="upper center")
    return fig


def plot_reliability(curves: Mapping[str, pd.DataFrame], title: str, source: str = "", log: bool = False) -> Figure:
    """Returns what was said against what was found, a curve a kind of probabilities; on the diagonal it is true.

    Args:
        curves: name -> table as of `reliability.compute_reliability`.
        title, source: see `plots.plot_bars`.
        log: logarithmic axes, for small probabilities; a share of 0, or nearly so, is drawn at their lower end.
    """
    fig, (ax,) = new_figure(1, (5, 5.4), title, source)
    floor = 0.5 * min(df[["prob", "share_high"]].to_numpy().min() for df in curves.values()) if log else 0
    for (marker, line, color), (name, df) in zip(STYLES, curves.items(), strict=False):
        share, low = df["share"].clip(lower=floor), df["share_low"].clip(lower=floor)
        ax.errorbar(df["prob"], share, [share - low, df["share_high"] - share], fmt=marker, linestyle=line, color=color,
                    capsize=2, linewidth=1, markersize=4, label=name)
    end = min(1, (1.5 if log else 1.1) * max(df[["prob", "share_high"]].to_numpy().max() for df in curves.values()))
    ax.plot([floor, end], [floor, end], ":", color="black", linewidth=1, label="as said, so found")
    if log:
        ax.set(xscale="log", yscale="log")
        _label_log_axis(ax.xaxis)
        _label_log_axis(ax.yaxis)
    ax.set(xlim=(floor, end), ylim=(floor, end), aspect="equal", xlabel="probability, mean of each tenth of the images",
           ylabel="share of melanomas found (95 %)")
    ax.legend(loc="upper left", fontsize=8)
    return fig


def plot_operating_points(df: pd.DataFrame, prevalence: float, source: str = "") -> Figure:
    """Returns of 1,000 lesions which are called suspicious at each operating point, with what is missed in words.

    Args:
        df: as of `operating_points.compute_operating_points`.
        prevalence: for which it was made.
        source: see `plots.plot_bars`.
    """
    title = f"Of 1,000 lesions, {1000 * prevalence:.3g} of them melanomas"
    fig, (ax,) = new_figure(1, (9, 1.6 + 0.5 * len(df)), title, source)
    found = 1000 * prevalence * df["sensitivity"]
    alarms = 1000 * (1 - prevalence) * (1 - df["specificity"])
    ax.barh(range(len(df)), found, 0.6, color=COLORS["melanoma"], hatch=HATCHES["melanoma"], edgecolor="white",
            label="melanoma")
    ax.barh(range(len(df)), alarms, 0.6, left=found, color=COLORS["benign"], edgecolor="white",
            label="benign")
    for y, missed in enumerate(df["missed_per_1000"]):
        text = f"{found[y]:.1f} melanomas found among {found[y] + alarms[y]:,.0f}; {missed:.1f} missed"
        ax.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    ax.set_yticks(range(len(df)), [f"sensitivity {100 * s:.3g} %" for s in df["wanted_sensitivity"]])
    ax.set(xlim=(0, 1000), ylim=(len(df) - 0.5, -0.5), xlabel="lesions called suspicious")
    fig.legend(loc="outside lower left", ncols=2, fontsize=8)
    return fig


def plot_decision_curve(df: pd.DataFrame, prevalence: float, source: str = "") -> Figure:
    """Returns the net benefit by threshold of the model, of biopsying all and of biopsying none.

    Args:
        df: as of `operating_points.compute_decision_curve`.
        prevalence: for which it was made.
        source: see `plots.plot_bars`.
    """
    fig, (ax,) = new_figure(1, (7, 3.8), f"Decision curve: {100 * prevalence:.3g} % melanomas", source)
    x = 100 * df["threshold"]
    ax.plot(x, 1000 * df["biopsy_all"], LINES["melanoma"], color=COLORS["melanoma"], label="biopsy all")
    ax.axhline(0, linestyle=":", color="black", linewidth=1, label="biopsy none")
    ax.plot(x, 1000 * df["net_benefit"], color=COLORS["benign"], linewidth=2, label="biopsy by the model (95 %)")
    ax.fill_between(x, 1000 * df["net_benefit_low"], 1000 * df["net_benefit_high"], color=COLORS["benign"], alpha=0.2)
    ax.set(xscale="log", xlabel="probability from which somebody wants a biopsy, %",
           ylabel="net melanomas found\nof 1,000 lesions", ylim=(-300 * prevalence, 1100 * prevalence))
    _label_log_axis(ax.xaxis)
    ax.legend(loc="upper right", fontsize=8)
    return fig


def plot_subgroups(df: pd.DataFrame, title: str, overall: Mapping[str, float], source: str = "") -> Figure:
    """Returns AUC and sensitivity of each group with their intervals, or the words "too few".

    Args:
        df: as of `subgroups.compute_subgroups`.
        title, source: see `plots.plot_bars`.
        overall: "auc" and "sensitivity" of all images, drawn as dotted lines.
    """
    fig, (left, right) = new_figure(2, (11, 1.5 + 0.26 * (len(df) + df["attribute"].nunique())), title, source)
    starts = (df["attribute"] != df["attribute"].shift()).to_numpy()
    y = np.arange(len(df)) + np.cumsum(starts)  # a heading's room above each attribute
    for ax, name in ((left, "auc"), (right, "sensitivity")):
        _draw_group_intervals(ax, df, name, y)
        ax.axvline(overall[name], color=GREY, linestyle=":", linewidth=1)
        ax.set(ylim=(y[-1] + 0.6, -0.4), xlabel=f"{name.replace('auc', 'AUC')}, 95 % interval (dotted: all images)")
    names = [f"{row.group}  ({row.n_melanomas:,} of {row.n_images:,})" for row in df.itertuples()]
    left.set_yticks([*(y[starts] - 1), *y], [*df["attribute"][starts], *names])
    for label in left.get_yticklabels()[:starts.sum()]:
        label.set_fontweight("bold")
    left.tick_params(axis="y", length=0)
    right.set_yticks([])
    return fig


def plot_stress_curves(df: pd.DataFrame, lines: Mapping[str, str], title: str, label: str,
                       level: float | None = None, source: str = "") -> Figure:
    """Returns a panel a kind of stress: one or more values by its strength.

    Args:
        df: a row a strength; columns kind, unit, strength, those named in `lines`, and where those have an interval
            `<column>_low` and `<column>_high`, drawn as a band.
        lines: column -> what the legend calls it; the name of a class in it gives its colour and line.
        title: names the question and n.
        label: of the vertical axis, which all panels share.
        level: where a horizontal line says "no change" or "chance"; None for none.
        source: see `plot_bars`.
    """
    kinds = df["kind"].unique()
    fig, axes = new_figure(len(kinds), (max(6.5, 0.8 + 2.3 * len(kinds)), 3.4), title, source)
    for ax, kind in zip(axes, kinds, strict=True):
        of_kind = df[df["kind"] == kind].sort_values("strength")
        for column, name in lines.items():
            key = next((key for key in COLORS if key in name), "benign")
            ax.plot(of_kind["strength"], of_kind[column], LINES[key], marker="o", markersize=4, color=COLORS[key],
                    label=name)
            if f"{column}_low" in df:
                ax.fill_between(of_kind["strength"], of_kind[f"{column}_low"], of_kind[f"{column}_high"],
                                color=COLORS[key], alpha=0.2, linewidth=0)
        if level is not None:
            ax.axhline(level, color=GREY, linestyle=":", linewidth=1)
        ax.set_title(kind, fontsize=9)
        ax.set_xlabel(of_kind["unit"].iloc[0])
    ends = [end for ax in axes for end in ax.get_ylim()]
    for ax in axes:
        ax.set_ylim(min(ends), max(ends))
        ax.tick_params(labelleft=ax is axes[0])
    axes[0].set_ylabel(label)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=len(lines), fontsize=8)
    return fig


def _draw_group_intervals(ax: Axes, df: pd.DataFrame, name: str, y: np.ndarray) -> None:
    is_there = df[name].notna().to_numpy()
    shown_df = df[is_there]
    errors = [(shown_df[name] - shown_df[f"{name}_low"]).clip(lower=0),  # -1e-16 where all resamples are alike
              (shown_df[f"{name}_high"] - shown_df[name]).clip(lower=0)]
    if len(shown_df):
        ax.errorbar(shown_df[name], y[is_there], xerr=errors, fmt="o", color=COLORS["benign"], capsize=2, markersize=4)
    for row, height in zip(df.itertuples(), y, strict=True):
        value = getattr(row, name)
        text = row.note if np.isnan(value) else f"{value:.2f} ({getattr(row, name + '_low'):.2f} to " \
                                                f"{getattr(row, name + '_high'):.2f})"
        ax.annotate(text, (1.02, height), xycoords=("axes fraction", "data"), va="center", fontsize=8)


def _label_log_axis(axis: Axis) -> None:
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))  # else the labels overlap
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _check_classes(targets: np.ndarray) -> np.ndarray:
    targets = np.asarray(targets).astype(int)
    if len(np.unique(targets)) != 2:
        raise ValueError(f"{len(targets)} targets hold {np.unique(targets).tolist()}: both 0 and 1 are needed")
    return targets
