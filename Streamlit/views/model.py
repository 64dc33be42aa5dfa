"""The truth about the chosen model: its card, and how well it does on patients that it had not seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import common
import numpy as np
import pandas as pd
import streamlit as st

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from melanoma_utils.assessment import Assessor

HEADLINE = ("oof_auc", "oof_auc_low", "oof_auc_high", "n_images", "n_patients", "n_melanomas", "source", "is_synthetic")
CARDS = ("README.md", "model_card.md")  # of an exported model, of an experiment
NO_SCORES = "This model's folder has no out-of-fold scores (oof_scores.csv): run `04_evaluate_oof` for it again, or " \
            "export it anew, to see the curves."


def show_chart(slot: str, key: tuple, draw: Callable[[], Figure], alt: str) -> None:
    """Shows a chart, drawn only where its key is another than the last time."""
    def encode() -> tuple[bytes, int]:
        fig = draw()
        return common.encode_chart(fig), round(75 * fig.get_figwidth())  # pixels; letters are alike in all charts

    content, width = common.remember(f"model_{slot}", (key, common.is_dark()), encode)
    st.image(content, width=width, alt=alt)


def show_headline(metrics: dict) -> None:
    """Writes the AUC with its interval, and on whom it was measured."""
    missing = [name for name in HEADLINE if name not in metrics]
    if missing:
        st.info(f"The metrics.json of this model lacks {', '.join(missing)}: run `04_evaluate_oof` for it again.")
        return
    with st.container(horizontal=True, gap="large"):
        st.metric("AUC, out of fold", f"{metrics['oof_auc']:.3f}", width="content", help="0.5 is chance, 1 is perfect: "
                  "how often a melanoma's score is above that of a benign lesion")
        st.metric("95 % interval", f"{metrics['oof_auc_low']:.3f}–{metrics['oof_auc_high']:.3f}", width="content")
        st.metric("Patients", f"{metrics['n_patients']:,}", width="content")
    st.caption(f"{metrics['n_images']:,} images, {metrics['n_melanomas']:,} of them melanomas, each scored by "
               f"networks that had not seen {common.name_unseen(metrics)}. Source: {metrics['source']}.")
    if leak := metrics.get("patient_leak"):
        st.warning(f"In one fold {100 * leak:.0f} % of the images have others of their patient among those trained on: "
                   "the figures flatter.")
    if metrics["is_synthetic"]:
        st.warning("These pictures are drawn by a program: the figures say that it works, and nothing about skin.")


def show_card(model_dir: Path) -> None:
    """Shows the model card."""
    path = next((model_dir / name for name in CARDS if (model_dir / name).is_file()), None)
    if path is None:
        st.info(f"This model has no card: its folder holds neither {' nor '.join(CARDS)}. "
                "`python -m melanoma_utils.export` writes one.")
        return
    st.markdown(path.read_text(encoding="utf-8", errors="replace"))


def show_discrimination(assessor: Assessor, key: tuple) -> None:
    """Shows how far the scores tell melanomas from benign lesions."""
    from melanoma_utils import evaluation_plots
    from melanoma_utils.assessment import to_probs

    if assessor.scores_df is None:
        st.info(NO_SCORES)
        return
    metrics, share = assessor.metrics, assessor.calibration.share
    targets, logits = (assessor.scores_df[column].to_numpy() for column in ("target", "logit"))
    if len(np.unique(targets)) < 2:
        st.info("These scores are of one class only: a ranking needs both 0 and 1.")
        return
    areas, source = [metrics.get(f"oof_auc{end}", np.nan) for end in ("", "_low", "_high")], metrics.get("source", "")
    show_chart("roc", key, lambda: evaluation_plots.plot_roc(targets, logits, *areas, source=source),
               f"ROC curve; AUC {areas[0]:.3f}, 95 % interval {areas[1]:.3f} to {areas[2]:.3f}")
    st.markdown("Where the two classes overlap, no threshold separates them. The probabilities are those among these "
                f"images, {100 * share:.3g} % of which are melanomas.")
    show_chart("scores", key, lambda: evaluation_plots.plot_score_histogram(
        targets, to_probs(assessor, logits, share), source), "distribution of the scores of each class")


def show_reliability(assessor: Assessor, prevalence: float, key: tuple) -> None:
    """Shows whether what was said of a lesion is what was found."""
    from scipy.special import expit

    from melanoma_utils import calibration, reliability
    from melanoma_utils.evaluation_plots import plot_reliability

    if assessor.scores_df is None:
        st.info(NO_SCORES)
        return
    targets, logits = (assessor.scores_df[column].to_numpy() for column in ("target", "logit"))
    groups = assessor.scores_df.get("patient", pd.Series(range(len(targets)))).to_numpy()  # none: of older runs
    why_not = calibration.explain_no_cross_fit(targets, groups)
    if why_not:
        st.info(f"Nothing can be said of the probabilities: {why_not}.")
        return
    probs = {"before": expit(logits), "calibrated": common.remember("model_probs", key, lambda: calibration.cross_fit(
        targets, logits, groups, assessor.calibration.method, prevalence))}
    st.markdown("Of all lesions that are told 5 %, 5 in 100 should be melanomas. Each image is calibrated here by a "
                "curve fitted without its patient, and weighted to the share of melanomas in the sidebar; “before” "
                "is what the networks themselves would say.")
    title = f"Reliability among people with {100 * prevalence:.3g} % melanomas"
    show_chart("reliability", key, lambda: plot_reliability(
        {name: reliability.compute_reliability(targets, p, prevalence) for name, p in probs.items()}, title,
        assessor.metrics.get("source", ""), log=prevalence < 0.1), title)
    words = {"brier": "Brier score", "brier_skill": "skill", "ece": "calibration error", "mean_prob": "mean"}
    scores_df = reliability.score_probabilities(targets, probs, prevalence)
    st.table(scores_df[list(words)].rename(columns=words).map("{:.3f}".format))


def show_points(assessor: Assessor, prevalence: float, key: tuple) -> None:
    """Shows what each threshold finds, misses and costs."""
    from melanoma_utils.evaluation_plots import plot_operating_points
    from melanoma_utils.evaluation_tables import tell_points
    from melanoma_utils.operating_points import move_prevalence

    points_df = move_prevalence(assessor.points_df, prevalence)
    show_chart("points", key, lambda: plot_operating_points(points_df, prevalence, assessor.metrics.get("source", "")),
               f"of 1,000 lesions, {1000 * prevalence:.3g} of them melanomas: who is called suspicious")
    st.markdown("A column for each share of melanomas that is to be found; 95 % intervals in brackets.")
    st.table(tell_points(points_df))
    st.caption("The thresholds were chosen on the images on which they are judged, which flatters a little.")


def show_subgroups(model_dir: Path, assessor: Assessor, key: tuple) -> None:
    """Shows how the model does for groups of people, places and pictures."""
    from melanoma_utils.evaluation_plots import plot_subgroups
    from melanoma_utils.evaluation_tables import tell_subgroups

    path, metrics = model_dir / "subgroups.csv", assessor.metrics
    if not path.is_file():
        st.info("This model's folder has no subgroups.csv: run `04_evaluate_oof` for it again, or export it anew.")
        return
    subgroups_df = pd.read_csv(path, keep_default_na=True).fillna({"note": "", "group": "unknown"})
    is_theirs = np.isclose(assessor.points_df["threshold"], metrics.get("subgroup_threshold", np.nan))
    st.markdown("One threshold for everybody. A group with fewer than 20 melanomas, or benign images, gets no number.")
    if is_theirs.any():
        point = assessor.points_df[is_theirs].iloc[0]
        overall = {"auc": metrics.get("oof_auc", np.nan), "sensitivity": point["sensitivity"]}
        title = f"Subgroups at the threshold that finds {100 * point['wanted_sensitivity']:.3g} % of all melanomas"
        source = metrics.get("source", "")
        show_chart("subgroups", key, lambda: plot_subgroups(subgroups_df, title, overall, source), title)
    st.table(tell_subgroups(subgroups_df))


st.title("Model", anchor=False)
model_dir = common.pick_model_dir()
assessor = common.get_assessor(model_dir)
prevalence = common.pick_prevalence(assessor)
show_headline(assessor.metrics)
VIEWS = {"Card": lambda: show_card(model_dir), "Ranking": lambda: show_discrimination(assessor, (id(assessor),)),
         "Probabilities": lambda: show_reliability(assessor, prevalence, (id(assessor), prevalence)),
         "Thresholds": lambda: show_points(assessor, prevalence, (id(assessor), prevalence)),
         "Subgroups": lambda: show_subgroups(model_dir, assessor, (id(assessor),))}
chosen = st.segmented_control("What to look at", list(VIEWS), default="Card", key="model_view")
VIEWS[chosen or "Card"]()
