import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
from conftest import DEMO, ROOT, TINY, make_command, place, run_pipeline
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from melanoma_utils import notebook_runs, pipeline
from melanoma_utils.calibration import apply_calibration, read_calibration
from melanoma_utils.competition import read_sample_submission, read_test, read_train
from melanoma_utils.image_context import predict_with_context
from melanoma_utils.pipeline import parse_steps
from melanoma_utils.plan import STEPS
from melanoma_utils.second_stage import read_second_stages
from melanoma_utils.synthetic import SyntheticConfig, draw_competition
from melanoma_utils.synthetic_formats import write_dicoms, write_external, write_shards

REPRODUCIBLE = ("output/stores/*/*/*", "output/*/*.csv", "output/*/*.safetensors", "output/*/metrics.json",
                "output/*/parameters.json", "output/*/calibration.json", "output/*/second_stage.json",
                "output/*/model_card.md",
                "output/*/test_fold_*.json", "submissions/*.csv")


def digest(folder):
    """Returns path -> checksum of all that must be the same in two equal runs."""
    paths = [p for pattern in REPRODUCIBLE for p in folder.glob(pattern) if p.name != ".lock"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def copy_finished(finished, tmp_path):
    """Returns a copy of the finished run that a test may spoil; times of change are kept."""
    return shutil.copytree(finished[0], tmp_path / "copy", copy_function=shutil.copy2)


def test_the_submission_is_whole_and_the_last_line_tells_it(finished, data_dir):
    folder, printed = finished
    submission_df = pd.read_csv(folder / "submissions" / "tiny.csv")
    sample_df = read_sample_submission(data_dir)
    assert list(submission_df) == ["image_name", "target"]
    assert submission_df["image_name"].tolist() == sample_df["image_name"].tolist()
    assert submission_df["target"].between(0, 1).all() and submission_df["target"].std() > 0
    assert re.search(rf"tiny\.csv: {len(sample_df)} rows, OOF AUC (with patient context )?0\.\d+ \(95 % interval "
                     r"0\.\d+–[01]\.\d+, 24 patients\) on a SYNTHETIC competition, \d+ s$", printed.splitlines()[-1])


def test_the_last_line_tells_the_auc_of_what_was_submitted(finished):
    folder, printed = finished
    metrics = json.loads((folder / "output" / "tiny" / "metrics.json").read_text())
    context_df = pd.read_csv(folder / "output" / "tiny" / "context.csv", index_col="step")
    row, context = context_df.loc["+ context"], metrics["context"]
    is_sure = bool(min(row["gain_low"], row["added_low"]) > 0)
    assert (context["wanted"], context["used"]) == ("auto", "lesion" if is_sure else "none")
    auc = row["auc"] if is_sure else metrics["oof_auc"]
    assert f"OOF AUC {'with patient context ' * is_sure}{auc:.4f} (" in printed.splitlines()[-1]
    assert f"patient context in the submission: {context['used']} ({context['why']})" in printed


def test_the_last_line_tells_no_auc_of_checkpoints_that_are_not_evaluated(finished, data_dir, tmp_path):
    folder = copy_finished(finished, tmp_path)
    output = folder / "output" / "tiny"
    plan = SimpleNamespace(submission_path=folder / "submissions" / "tiny.csv", experiment_dir=output)
    assert "OOF AUC" in pipeline.describe_result(plan, 1)
    shutil.copyfile(output / "fold_0.safetensors", output / "fold_1.safetensors")  # as trained again since
    assert "models that are not evaluated: run 04_evaluate_oof" in pipeline.describe_result(plan, 1)
    (output / "metrics.json").unlink()
    assert "models that are not evaluated: run 04_evaluate_oof" in pipeline.describe_result(plan, 1)


def test_context_that_is_asked_for_ranks_the_test_images_beside_their_patients(finished, data_dir, tmp_path):
    folder = copy_finished(finished, tmp_path)
    flags = (*place(folder, data_dir), "-r", "CONTEXT", "collection", "--steps", "04-05")
    printed = run_pipeline(*flags, "--fresh").stdout
    output = folder / "output" / "tiny"
    metrics = json.loads((output / "metrics.json").read_text())
    stages = read_second_stages(output / "second_stage.json")
    auc = pd.read_csv(output / "context.csv", index_col="step").loc["+ collection", "auc"]
    assert metrics["context"]["used"] == "collection" and metrics["context"]["oof_auc"] == auc
    assert f"OOF AUC with patient context {auc:.4f} (" in printed.splitlines()[-1]
    assert len(stages) == 2 and "n_images" in stages[0].features
    submission_df = pd.read_csv(folder / "submissions" / "tiny.csv")
    tables = [pd.read_csv(output / f"test_fold_{k}.csv") for k in range(2)]
    expected = predict_with_context(stages, tables, read_test(data_dir)).set_index("image_name")["logit"]
    assert submission_df["target"].tolist() == pytest.approx(expit(expected[submission_df["image_name"]]).tolist())
    assert 0 < submission_df["target"].min() < submission_df["target"].max() < 1
    assert run_pipeline(*flags).stdout.count("nothing to do") == 2


def test_what_was_evaluated_by_hand_since_is_predicted_again(finished, data_dir, tmp_path):
    folder = copy_finished(finished, tmp_path)
    flags = (*place(folder, data_dir), "--steps", "05")
    assert "05_predict_test: nothing to do" in run_pipeline(*flags).stdout
    os.utime(folder / "output" / "tiny" / "metrics.json")
    assert "nothing to do" not in run_pipeline(*flags).stdout


def test_metrics_are_those_of_the_oof_files(finished, data_dir):
    folder = finished[0] / "output" / "tiny"
    metrics = json.loads((folder / "metrics.json").read_text())
    oof_df = pd.concat([pd.read_csv(folder / f"oof_fold_{k}.csv") for k in range(2)])
    melanoma, benign = (oof_df[oof_df["target"] == t]["logit"].to_numpy() for t in (1, 0))
    pairs = melanoma[:, None] - benign[None]
    assert metrics["oof_auc"] == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())
    assert metrics["oof_auc_low"] <= metrics["oof_auc"] <= metrics["oof_auc_high"]
    assert metrics["n_images"] == len(oof_df) == len(pd.read_csv(folder / "folds.csv"))
    assert (metrics["n_patients"], len(metrics["fold_auc"])) == (oof_df["patient_id"].nunique(), 2)
    assert metrics["n_images"] < len(read_train(data_dir))  # the drawn duplicates are dropped
    assert "seconds" not in json.dumps(metrics) and (folder / "timing.json").exists()


def test_the_evaluation_leaves_tables_and_a_calibrator(finished):
    folder = finished[0] / "output" / "tiny"
    metrics = json.loads((folder / "metrics.json").read_text())
    oof_df = pd.concat([pd.read_csv(folder / f"oof_fold_{k}.csv") for k in range(2)])
    assert metrics["pr_auc"] == pytest.approx(average_precision_score(oof_df["target"], oof_df["logit"]))
    assert metrics["partial_auc_low"] <= metrics["partial_auc"] <= metrics["partial_auc_high"]
    calibration = read_calibration(folder / "calibration.json")
    probs = apply_calibration(calibration, oof_df["logit"])
    assert calibration.method == "platt" and probs.mean() == pytest.approx(oof_df["target"].mean(), abs=0.02)
    points_df = pd.read_csv(folder / "operating_points.csv")
    for row, in_metrics in zip(points_df.itertuples(), metrics["operating_points"], strict=True):
        is_called = oof_df["logit"] >= row.threshold - 1e-9
        assert is_called[oof_df["target"] == 1].mean() == pytest.approx(row.sensitivity)
        assert row.sensitivity >= row.wanted_sensitivity
        assert (apply_calibration(calibration, [row.threshold], 0.0176)[0], in_metrics["ppv"]) == pytest.approx(
            (row.threshold_prob, row.ppv))
    subgroups_df = pd.read_csv(folder / "subgroups.csv", keep_default_na=False)
    assert (subgroups_df.groupby("attribute")["n_images"].sum() == len(oof_df)).all()
    assert {"sex", "age", "site", "image size"} < set(subgroups_df["attribute"])
    scores_df = pd.read_csv(folder / "oof_scores.csv")
    assert list(scores_df) == ["target", "logit", "patient"] and scores_df["logit"].is_monotonic_increasing
    assert sorted(scores_df["patient"].value_counts()) == sorted(oof_df["patient_id"].value_counts())
    assert roc_auc_score(scores_df["target"], scores_df["logit"]) == pytest.approx(metrics["oof_auc"], abs=0.01)
    assert sorted(scores_df["logit"]) == sorted(oof_df["logit"].round(3))
    assert (pd.read_csv(folder / "decision_curve.csv")["net_benefit"] <= metrics["prevalence"]).all()


def test_executed_notebooks_are_kept(finished):
    names = sorted(p.stem for p in (finished[0] / "runs" / "tiny").glob("*.ipynb"))
    assert names == [STEPS[0], STEPS[1], f"{STEPS[2]}_0", f"{STEPS[2]}_1", STEPS[3], STEPS[4]]


def test_the_model_card_tells_the_run_and_the_tables_it_read(finished, data_dir):
    folder = finished[0] / "output" / "tiny"
    card, metrics = (folder / "model_card.md").read_text(), json.loads((folder / "metrics.json").read_text())
    assert "DRAWN PICTURES" in card.splitlines()[0] and f"ROC AUC {metrics['oof_auc']:.3f}" in card
    for path in (data_dir / "train.csv", folder / "folds.csv"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    assert "`N_EPOCHS` 2" in card and "| + context |" in card and "of the saliency (Grad-CAM)" in card


def test_the_report_is_told_before_the_last_line_and_made_again_where_it_is_missing(finished, data_dir, tmp_path):
    path = finished[0] / "runs" / "tiny" / "report.html"
    told = ": the evaluation, to be read in a browser"
    assert finished[1].splitlines()[-2] == os.path.relpath(path) + told
    html = path.read_text(encoding="utf-8")
    assert "pooled OOF AUC" in html and "NOT SKIN" in html and html.count("<details>") > 20 and "<script" not in html
    assert html.count('src="data:image/png') == html.count("<img") > 8
    folder = copy_finished(finished, tmp_path)
    (folder / "runs" / "tiny" / "report.html").unlink()
    process = run_pipeline(*place(folder, data_dir))
    assert process.stdout.count("nothing to do") == 6 and f"runs/tiny/report.html{told}" in process.stdout
    assert process.stderr == "" and (folder / "runs" / "tiny" / "report.html").read_bytes() == path.read_bytes()


def test_nothing_goes_to_stderr(finished_command):
    assert finished_command[1].stderr == "" and "folds.csv" in finished_command[1].stdout


def test_a_second_call_does_nothing_twice(finished, data_dir):
    before = {p: p.stat().st_mtime_ns for p in (finished[0] / "output").rglob("*") if p.is_file()}
    report_path = finished[0] / "runs" / "tiny" / "report.html"
    before[report_path] = report_path.stat().st_mtime_ns
    printed = run_pipeline(*place(finished[0], data_dir)).stdout
    assert printed.count("nothing to do") == 6
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_lost_file_is_made_again_with_the_same_bytes(finished, data_dir, tmp_path):
    folder = copy_finished(finished, tmp_path)
    for name in ("fold_1.safetensors", "second_stage.json", "diagnoses.csv"):
        (folder / "output" / "tiny" / name).unlink()
    (folder / "submissions" / "tiny.csv").unlink()
    printed = run_pipeline(*place(folder, data_dir)).stdout
    assert "03_train_fold_0: nothing to do" in printed and "03_train_fold_1: nothing" not in printed
    assert digest(folder) == digest(finished[0])


def test_paths_are_relative_to_where_the_command_is_typed(finished, data_dir, tmp_path, monkeypatch):
    folder = copy_finished(finished, tmp_path)
    monkeypatch.chdir(folder)
    relative = Path(os.path.relpath(data_dir, folder))
    printed = run_pipeline("--runs-dir", "runs", "-r", "DATA_DIR", relative, "-r", "OUTPUT_DIR", "output", "-r",
                           "SUBMISSIONS_DIR", "submissions").stdout
    assert printed.count("nothing to do") == 6 and printed.splitlines()[-1].startswith("submissions/tiny.csv: ")


@pytest.mark.parametrize(("arguments", "message"), [
    (("-p", "N_FOLD", "3"), "no notebook knows the parameter N_FOLD; nearest: N_FOLDS"),
    (("-p", "FOLD", "2"), r"FOLD 2 is not in 0\.\.1"),
    (("-p", "N_EPOCHS", "many"), "N_EPOCHS 'many' is str, wanted int"),
    (("-p", "BATCH_SIZE", "1", "-p", "EXPERIMENT", "new"), "BATCH_SIZE 1 is too small: wanted at least 2"),
    (("-p", "LR", "50.0", "-p", "EXPERIMENT", "new"), r"LR 50\.0 is not in 0\.\.10"),
    (("-p", "ARCH", "timm/resnet10", "-p", "EXPERIMENT", "new"), "ARCH 'timm/resnet10' does not exist; nearest: "),
    (("-p", "TTA_VIEWS", "3", "-p", "EXPERIMENT", "new"), "TTA_VIEWS 3 is not one of"),
    (("-p", "RUNTIME", "openvino", "-p", "PRECISION", "bf16", "-p", "EXPERIMENT", "new"),
     "RUNTIME 'openvino' predicts on a CPU in fp32"),
    (("-y", "TEACHERS: [7]", "-p", "EXPERIMENT", "new"), "TEACHERS: there is no experiment '7'"),
    (("-p", "PRECISION", "fp8", "-p", "EXPERIMENT", "new"), "PRECISION 'fp8' is not one of"),
    (("-p", "N_FOLDS", "1", "-p", "EXPERIMENT", "new"), "N_FOLDS 1 is too small"),
    (("-p", "CONTEXT", "yes", "-p", "EXPERIMENT", "new"), "CONTEXT 'yes' is not one of"),
    (("-p", "RESIZE_MODE", "squish", "-p", "EXPERIMENT", "new"), "RESIZE_MODE 'squish' is not one of"),
    (("-y", "CLEAN_STEPS: [remove_hair]", "-p", "EXPERIMENT", "new"), "CLEAN_STEPS 'remove_hair' is not one of"),
    (("-p", "PREVALENCE", "17.6", "-p", "EXPERIMENT", "new"), "PREVALENCE 17.6 is not between 0 and 1"),
    (("-y", "SENSITIVITIES: [95]", "-p", "EXPERIMENT", "new"), "SENSITIVITIES 95 is not in 0..1"),
    (("-y", "SENSITIVITIES: [a]", "-p", "EXPERIMENT", "new"), "SENSITIVITIES 'a' is not in 0..1"),
    (("-p", "N_RESAMPLES", "39", "-p", "EXPERIMENT", "new"), "N_RESAMPLES 39 is too small"),
    (("-r", "WEIGHTS", "nowhere.pth", "-p", "EXPERIMENT", "new"), "WEIGHTS '.*nowhere.pth' is neither"),
    (("-r", "DATA_DIR", "nowhere"), "DATA_DIR .*nowhere does not exist"),
    (("-r", "START_FROM", "{output}/tiny"), "START_FROM is the EXPERIMENT 'tiny' itself"),
    (("-r", "FOLDS_FROM", "{output}/tiny", "--steps", "02-05", "--fresh"), "FOLDS_FROM is the EXPERIMENT 'tiny'"),
    (("-y", "DISTILL_FROM: [tiny]"), "DISTILL_FROM is the EXPERIMENT 'tiny' itself"),
    (("-r", "DEVICE", "gpu"), "DEVICE 'gpu' is not one of"),
    (("-y", "MORE_IMAGE_SIZES: ['48']"), "MORE_IMAGE_SIZES '48' is no whole number"),
    (("--notebook", "10_benchmark", "--fresh"), "--notebook runs one notebook as it is"),
    (("-f", "nowhere.yaml"), "the parameter file nowhere.yaml does not exist"),
    (("-f", "{latin}"), ".*latin.yaml is not in UTF-8"),
    (("-r", "SUBMISSIONS_DIR", "{latin}"), ".*latin.yaml is a file, no folder: nothing can"),
    (("--steps", "03-07"), "--steps '03-07' is not a number or range"),
    (("-r", "EXPERIMENT", "../x"), "EXPERIMENT '../x' is not a plain name"),
    (("-r", "EXPERIMENT", ".."), "EXPERIMENT '..' is not a plain name"),
    (("-p", "LR", "0.5"), r".*begun otherwise \(LR is 0\.002, wanted 0\.5\): .*--steps 03-05 --fresh"),
    (("-p", "N_FOLDS", "3"), r".*begun otherwise \(N_FOLDS is 2, wanted 3\): .*--steps 02-05 --fresh"),
    (("-r", "CONTEXT", "none"), r".*begun otherwise \(CONTEXT is 'auto', wanted 'none'\): .*--steps 04-05 --fresh"),
    (("-p", "LR", "0.5", "--steps", "04-05", "--fresh"), r".*LR is 0\.002, wanted 0\.5"),
    (("-p", "LR", "0.5", "--steps", "01-03", "--fresh"), r".*LR is 0\.002, wanted 0\.5"),
    (("-p", "LR", "0.5", "-p", "FOLD", "1", "--fresh"), r".*LR is 0\.002, wanted 0\.5"),
])
def test_wrong_calls_get_one_clear_line_and_change_nothing(finished, data_dir, tmp_path, arguments, message):
    before = digest(finished[0])
    (tmp_path / "latin.yaml").write_bytes("EXPERIMENT: größer".encode("latin-1"))
    arguments = [argument.replace("{output}", str(finished[0] / "output")).replace(
        "{latin}", str(tmp_path / "latin.yaml")) for argument in arguments]
    done = run_pipeline(*place(finished[0], data_dir), *arguments, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.match(f"error: {message}", done.stderr)
    assert digest(finished[0]) == before


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    def fail(*arguments, **how):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(notebook_runs.papermill, "execute_notebook", fail)
    done = run_pipeline("--notebook", "10_benchmark", "--runs-dir", tmp_path, parameters=None, check=False)
    assert done.returncode == 1 and done.stderr == ("error: [Errno 28] No space left on device: "
                                                    f"'{tmp_path / '10_benchmark.ipynb'}'\n")


def test_a_kernel_that_does_not_come_up_is_one_line(tmp_path, monkeypatch):
    def fail(*arguments, **how):
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(notebook_runs.papermill, "execute_notebook", fail)
    done = run_pipeline("--notebook", "10_benchmark", "--runs-dir", tmp_path, parameters=None, check=False)
    assert done.returncode == 1 and done.stderr == ("error: the kernel of 10_benchmark did not come up (Kernel died "
                                                    "before replying to kernel_info): run the same command again\n")


def test_the_command_line_does_not_wait_for_torch_or_nbconvert():
    code = ("import sys, melanoma_utils.pipeline, melanoma_utils.images; "
            "sys.exit('torch' in sys.modules or 'nbconvert' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_fresh_starts_the_named_steps_over(finished, data_dir, tmp_path):
    folder = copy_finished(finished, tmp_path)
    printed = run_pipeline(*place(folder, data_dir), "-p", "N_RESAMPLES", 100, "--steps", "04-05", "--fresh").stdout
    assert "nothing to do" not in printed and "03_train" not in printed
    changed = {p for p, d in digest(folder).items() if digest(finished[0]).get(p) != d}
    assert changed == {f"output/tiny/{name}" for name in ("metrics.json", "parameters.json", "operating_points.csv",
                                                          "decision_curve.csv", "subgroups.csv", "context.csv",
                                                          "model_card.md")}


def test_fresh_with_a_fold_spares_the_others(finished, data_dir, tmp_path):
    folder = copy_finished(finished, tmp_path)
    kept = folder / "output" / "tiny" / "fold_0.safetensors"
    changed = kept.stat().st_mtime_ns
    printed = run_pipeline(*place(folder, data_dir), "--steps", "03", "-p", "FOLD", 1, "--fresh").stdout
    assert "epoch  2/2" in printed and "OOF AUC" not in printed and kept.stat().st_mtime_ns == changed
    assert digest(folder) == digest(finished[0])


def test_a_new_list_of_duplicates_is_noticed(finished, data_dir, tmp_path):
    folder = copy_finished(finished, tmp_path)
    duplicates_df = pd.read_csv(data_dir / "2020_Challenge_duplicates.csv")
    duplicates_df.iloc[1:].to_csv(tmp_path / "shorter.csv", index=False)
    process = run_pipeline(*place(folder, data_dir), "-r", "DUPLICATES_CSV", tmp_path / "shorter.csv", check=False)
    assert process.returncode == 1 and "DUPLICATES_CSV is '', wanted 'shorter.csv'" in process.stderr


@pytest.mark.slow
def test_a_truncated_image_stops_the_run_by_name_and_skip_lists_it(data_dir, tmp_path):
    folder = shutil.copytree(data_dir, tmp_path / "data")
    train_path, test_path = (sorted((folder / "jpeg" / split).iterdir())[3] for split in ("train", "test"))
    train_path.write_bytes(train_path.read_bytes()[:400])
    flags = (*place(tmp_path, folder), "--steps", "01-02")
    process = run_pipeline(*flags, check=False)
    assert process.returncode == 1 and f"{train_path.name} can't be decoded" in process.stderr
    assert "Traceback" not in process.stderr and "ON_BAD_IMAGE='skip'" in process.stderr
    printed = run_pipeline(*flags, "-r", "ON_BAD_IMAGE", "skip").stdout
    assert f"skipped training images: 1 {train_path.stem}" in printed and "1 skipped images left out" in printed
    assert train_path.stem not in set(pd.read_csv(tmp_path / "output" / "tiny" / "folds.csv")["image_name"])
    test_path.write_bytes(b"")
    shutil.rmtree(tmp_path / "output")
    process = run_pipeline(*flags, "-r", "ON_BAD_IMAGE", "skip", check=False)
    assert process.returncode == 1 and f"{test_path.name} is empty (0 bytes)" in process.stderr


@pytest.mark.parametrize(("image_format", "line"), [
    ("dicom", "121 DICOM headers, 0 TFRecord codes: 0 values differ"),
    pytest.param("tfrecord", "0 DICOM headers, 97 TFRecord codes: 0 values differ", marks=pytest.mark.slow),
])
def test_other_formats_give_the_store_that_jpeg_gives(finished, data_dir, tmp_path, image_format, line):
    folder = shutil.copytree(data_dir, tmp_path / "input" / "tiny")
    {"dicom": write_dicoms, "tfrecord": write_shards}[image_format](folder)
    printed = run_pipeline(*place(tmp_path, folder), "--steps", "01", "-r", "IMAGE_FORMAT", image_format).stdout
    assert line in printed
    stores = [sorted((where / "output" / "stores").glob("*/*/images.npy")) for where in (finished[0], tmp_path)]
    from_jpeg, from_dicom = ([path.read_bytes() for path in paths] for paths in stores)
    assert from_jpeg == from_dicom and len(from_dicom) == 2


@pytest.fixture(scope="module")
def with_external(data_dir, tmp_path_factory):
    """A folder in which the pipeline has run with external images, of which two are the competition's; the output."""
    folder = tmp_path_factory.mktemp("with_external")
    config = SyntheticConfig(n_train_patients=16, n_test_patients=1, mean_images_per_patient=3, prevalence=0.4,
                             image_size=64, duplicate_share=0, seed=5)
    write_external(draw_competition(folder / "other", config, n_jobs=1), folder / "isic_2019")
    images = sorted((folder / "isic_2019" / "ISIC_2019_Training_Input").iterdir())
    copied = [sorted((data_dir / "jpeg" / split).iterdir())[0] for split in ("train", "test")]
    for source, path in zip(copied, images, strict=False):
        shutil.copy(source, path)
    flags = (*place(folder, data_dir), "-r", "EXTERNAL_DIR", folder / "isic_2019", "-p", "IMAGE_SIZE", 64)
    return folder, flags, run_pipeline(*flags).stdout, [path.stem for path in images[:2]]


def test_external_images_are_trained_on_and_scored_apart(with_external, data_dir):
    folder, flags, printed, copies = with_external
    output = folder / "output" / "tiny"
    folds_df = pd.read_csv(output / "folds.csv")
    external_df = folds_df[folds_df["source"] == "external"]
    assert not set(external_df["image_name"]) & set(copies) and len(external_df) > 20
    assert "external images; 2 copies dropped" in printed
    metrics = json.loads((output / "metrics.json").read_text())
    oof_df = pd.concat([pd.read_csv(output / f"oof_fold_{k}.csv") for k in range(2)])
    assert set(oof_df["image_name"]) == set(folds_df[folds_df["source"] == "competition"]["image_name"])
    assert metrics["n_images"] == len(oof_df) and metrics["oof_auc"] == pytest.approx(
        roc_auc_score(oof_df["target"], oof_df["logit"]))
    subgroups_df = pd.read_csv(output / "subgroups.csv")
    of_source = subgroups_df[subgroups_df["attribute"] == "source"].set_index("group")["n_images"]
    assert of_source.to_dict() == {"competition": len(oof_df), "external": len(external_df)}
    external_oof_df = pd.concat([pd.read_csv(output / f"external_oof_fold_{k}.csv") for k in range(2)])
    assert set(external_oof_df["image_name"]) == set(external_df["image_name"])
    assert metrics["external_auc"] == pytest.approx(roc_auc_score(external_oof_df["target"], external_oof_df["logit"]))
    diagnoses_df = pd.read_csv(output / "diagnoses.csv", keep_default_na=False)
    assert diagnoses_df["diagnosis"].tolist() == [row["diagnosis"] for row in metrics["diagnoses"]]
    known_df = folds_df[folds_df["diagnosis"].notna() & (folds_df["diagnosis"] != "unknown")]
    assert diagnoses_df.groupby("source")["n"].sum().to_dict() == known_df["source"].value_counts().to_dict()
    assert set(diagnoses_df["source"]) == {"competition", "external"} and "melanoma is named among these" in printed
    assert run_pipeline(*flags).stdout.count("nothing to do") == 6


def test_an_experiment_does_not_lose_or_gain_external_images_unnoticed(with_external, data_dir):
    folder = with_external[0]
    process = run_pipeline(*place(folder, data_dir), "-p", "IMAGE_SIZE", 64, check=False)
    assert process.returncode == 1 and "EXTERNAL_DIR is 'isic_2019', wanted ''" in process.stderr


def test_a_parameter_that_came_later_had_its_default(finished, data_dir, tmp_path, with_external):
    folder = copy_finished(finished, tmp_path)
    path = folder / "output" / "tiny" / "parameters.json"
    older = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("EXTERNAL_DIR", "CLEAN_STEPS")}
    path.write_text(json.dumps(older))
    for flags in (["-r", "EXTERNAL_DIR", with_external[0] / "isic_2019"], ["-p", "CLEAN_STEPS", "['crop_frame']"]):
        process = run_pipeline(*place(folder, data_dir), *flags, check=False)
        assert process.returncode == 1 and "was begun otherwise" in process.stderr and "02-05 --fresh" in process.stderr
        assert json.loads(path.read_text()) == older
    run_pipeline(*place(folder, data_dir))
    assert json.loads(path.read_text())["EXTERNAL_DIR"] == ""


def test_n_external_without_external_images_is_refused(data_dir, tmp_path):
    process = run_pipeline(*place(tmp_path, data_dir), "-p", "N_EXTERNAL", 8, check=False)
    assert process.returncode == 1 and "EXTERNAL_DIR names no external images" in process.stderr


def test_missing_stores_are_built_whatever_step_is_asked_for(data_dir, tmp_path):
    printed = run_pipeline(*place(tmp_path, data_dir), "--steps", "02").stdout
    assert "01_resize_images" in printed and "tiny/folds.csv" in printed


@pytest.mark.slow
def test_more_sizes_are_stores_that_another_experiment_finds(data_dir, tmp_path):
    run_pipeline(*place(tmp_path, data_dir), "--steps", "01", "-p", "MORE_IMAGE_SIZES", "[48]")
    printed = run_pipeline(*place(tmp_path, data_dir), "--steps", "01", "-p", "IMAGE_SIZE", "48", "-p", "EXPERIMENT",
                           "larger").stdout
    assert "stores/tiny_48_squash: train (97, 48, 48, 3)" in printed and "of 97 images" not in printed


@pytest.mark.slow
def test_clean_steps_have_a_store_of_their_own(data_dir, tmp_path):
    flags = (*place(tmp_path, data_dir), "--steps", "01", "-p", "CLEAN_STEPS")
    assert "stores/tiny_32_squash_shades_of_gray: train" in run_pipeline(*flags, "['shades_of_gray']").stdout
    process = run_pipeline(*flags, "['bleach']", "-p", "EXPERIMENT", "other", check=False)
    assert process.returncode == 1 and "CLEAN_STEPS 'bleach' is not one of" in process.stderr


def test_parse_steps():
    assert parse_steps("03-05") == list(STEPS[2:]) and parse_steps("02") == [STEPS[1]]
    for text in ("", "06", "05-03", "01-"):
        with pytest.raises(ValueError, match="--steps"):
            parse_steps(text)


def spawn(flags, parameters=TINY, **environment):
    """Starts the pipeline and returns the process, its output a pipe."""
    return subprocess.Popen(make_command(*flags, parameters=parameters), stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True,
                            env=os.environ | {k: str(v) for k, v in environment.items()})


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_in_one_line_and_the_next_call_continues(finished, data_dir, tmp_path, number, status):
    flags = place(tmp_path, data_dir)
    process = spawn(flags)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("epoch  1"):
            started = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(number)
    assert not psutil.wait_procs(started, timeout=10)[1]
    assert process.wait() == status and lines[-1] == "stopped; the same command continues here\n"
    assert "Traceback" not in "".join(lines) and not list(ROOT.glob("notebooks/kernel*"))
    assert "01_resize_images: nothing to do" in run_pipeline(*flags).stdout
    assert digest(tmp_path) == digest(finished[0])


KILLER = """
import os, signal
def deadly(real):
    def call(path, *arguments, **options):
        if os.environ["KILL_FOLDER"] in str(path) and ".lock" not in str(path):
            with open(os.environ["KILL_COUNTER"], "a") as file:
                file.write(".")
            if os.path.getsize(os.environ["KILL_COUNTER"]) == int(os.environ["KILL_AT"]):
                os.kill(os.getpid(), signal.SIGKILL)
        return real(path, *arguments, **options)
    return call
os.replace, os.unlink = deadly(os.replace), deadly(os.unlink)
"""


@pytest.mark.slow
def test_twenty_kills_of_the_demo_end_with_the_bytes_of_an_undisturbed_run(tmp_path, monkeypatch):
    """One demo killed again and again: ten times a process dies before it renames or deletes a file, ten times the
    pipeline after some new lines of its output, its notebook's kernel left behind."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # whatever make test says: with one the bytes are easily the same
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILLER)
    rng, flags, statuses = random.Random(0), place(tmp_path / "killed"), []
    for i in range(20):
        deadly = {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}", "KILL_COUNTER": tmp_path / f"counter_{i}",
                  "KILL_FOLDER": tmp_path / "killed" / "output", "KILL_AT": rng.randint(1, 5)}
        process = spawn(flags, DEMO, **(deadly if i % 2 else {}))
        if i % 2 == 0:
            news = (line for line in process.stdout if "nothing to do" not in line)
            for _ in zip(range(rng.randint(1, 4)), news, strict=False):
                pass
            process.kill()
        statuses.append(process.wait())
        process.stdout.close()
    assert sum(status != 0 for status in statuses) >= 18, statuses
    run_pipeline(*flags, parameters=DEMO)
    run_pipeline(*place(tmp_path / "whole"), parameters=DEMO)
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole") != {}


@pytest.mark.slow
def test_a_full_disk_is_one_clear_line_and_nothing_is_lost(tmp_path):
    """A real 20 MB tmpfs as output folder; when it has grown the same command ends with the bytes of any other run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk]).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        config = SyntheticConfig(n_train_patients=20, n_test_patients=5, mean_images_per_patient=4, image_size=64)
        data_dir = draw_competition(tmp_path / "data", config)
        flags = [*place(tmp_path, data_dir), "-r", "OUTPUT_DIR", disk, "-r", "ARCH", "timm/resnet10t"]
        process = run_pipeline(*flags, check=False)
        assert process.returncode == 1 and process.stderr.count("\n") == 1
        assert "No space left on device" in process.stderr
        subprocess.run(["mount", "-o", "remount,size=300m", disk], check=True)
        run_pipeline(*flags)
        other = tmp_path / "other"
        run_pipeline(*place(other, data_dir), "-r", "ARCH", "timm/resnet10t")
        assert digest(other)["submissions/tiny.csv"] == digest(tmp_path)["submissions/tiny.csv"]
        assert (disk / "tiny" / "fold_1.safetensors").read_bytes() == (
            other / "output" / "tiny" / "fold_1.safetensors").read_bytes()
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


@pytest.mark.real
def test_the_main_job_on_real_data_in_small(real_dir, tmp_path):
    """Two epochs at 64 px of the real recipe: a submission of 10,982 rows, and a ranking better than chance."""
    weights = real_dir.parent / "weights" / "mobilenet_v2_imagenet_fp16.safetensors"
    recipe = ROOT / "notebooks" / "parameters" / "siim_subset_cpu.yaml"
    run_pipeline(*place(tmp_path, real_dir / "siim-isic-subset"), "-r", "WEIGHTS", weights, "-p", "IMAGE_SIZE", 64,
                 "-p", "N_FOLDS", 2, "-p", "N_EPOCHS", 2, "-p", "TTA_VIEWS", 1, "-r", "EXPERIMENT", "tiny",
                 parameters=recipe)
    metrics = json.loads((tmp_path / "output" / "tiny" / "metrics.json").read_text())
    assert len(pd.read_csv(tmp_path / "submissions" / "tiny.csv")) == 10982
    assert metrics["oof_auc_low"] > 0.6 and metrics["n_images"] == 909 and not metrics["is_synthetic"]
