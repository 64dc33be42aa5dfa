import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import place, run_pipeline

from melanoma_utils.competition import drop_duplicates, read_duplicates, read_test, read_train
from melanoma_utils.folds import create_folds, read_folds
from melanoma_utils.image_store import ImageStore
from melanoma_utils.leak_audit import PAIRS_FILE, audit_folds, check_findings, check_folds
from melanoma_utils.near_duplicates import PAIR_COLUMNS, find_pairs

NO_PAIRS = pd.DataFrame(columns=list(PAIR_COLUMNS))


@pytest.fixture(scope="module")
def train_df(data_dir):
    return drop_duplicates(read_train(data_dir), read_duplicates(data_dir / "2020_Challenge_duplicates.csv"))


@pytest.fixture(scope="module")
def test_df(data_dir):
    return read_test(data_dir)


@pytest.fixture(scope="module")
def clean_df(train_df):
    """Folds without any leak: the competition's, and as many external images of lesions of their own."""
    external_df = train_df.assign(image_name="external_" + train_df["image_name"],
                                  patient_id="lesion_" + train_df["patient_id"])
    parts = [create_folds(train_df, 3), create_folds(external_df, 3, source="external")]
    return pd.concat(parts, ignore_index=True)


def make_pairs(*pairs):
    """Returns a table of pairs, each image_name, split, other_name, other_split, kind."""
    return pd.DataFrame([dict(zip(PAIR_COLUMNS, (*pair[:4], 0, pair[4]), strict=True)) for pair in pairs])


def pick(folds_df, fold, source="competition", row=0):
    """Returns the name of an image of a fold."""
    return folds_df[(folds_df["fold"] == fold) & (folds_df["source"] == source)]["image_name"].iloc[row]


def audit(folds_df, train_df, test_df, pairs_df=NO_PAIRS):
    """Returns the findings that there are."""
    return {name: df for name, df in audit_folds(folds_df, train_df, test_df, pairs_df).items() if len(df)}


def test_clean_folds_pass(clean_df, train_df, test_df):
    same_fold = (pick(clean_df, 0), "train", pick(clean_df, 0, row=1), "train", "copy")
    dropped = (pick(clean_df, 0), "train", "dropped", "train", "listed")
    findings = audit_folds(clean_df, train_df, test_df, make_pairs(same_fold, dropped))
    assert not any(map(len, findings.values()))
    assert check_findings(findings) == ["leak audit: no patient, duplicate or copy is in two folds, or in training and "
                                        "test"]


def move(folds_df, name):
    """Returns the folds with one image in the next one."""
    return folds_df.assign(fold=(folds_df["fold"] + (folds_df["image_name"] == name)) % 3)


@pytest.mark.parametrize("source", ["competition", "external"])
def test_a_patient_or_lesion_in_two_folds_is_found_by_name(clean_df, train_df, test_df, source):
    row = clean_df[(clean_df["source"] == source) & clean_df["patient_id"].duplicated(keep=False)].iloc[0]
    findings = audit(move(clean_df, row["image_name"]), train_df, test_df)
    assert list(findings) == ["split_patients"]
    assert findings["split_patients"].to_dict("list") == {
        "patient_id": [row["patient_id"]], "n_folds": [2],
        "n_images": [(clean_df["patient_id"] == row["patient_id"]).sum()]}
    with pytest.raises(ValueError, match=rf"^folds\.csv leaks: 1 patients or lesions are in several folds "
                                         rf"\({row['patient_id']}\): make the folds anew .* FOLD_STRATEGY 'image'$"):
        check_findings(findings)


def test_a_patient_in_train_and_test_is_found_by_name(clean_df, train_df, test_df):
    shared = test_df.assign(patient_id=[train_df["patient_id"][0], *test_df["patient_id"][1:]])
    findings = audit(clean_df, train_df, shared)
    assert list(findings) == ["test_patients"]
    with pytest.raises(ValueError, match=rf"1 patients are in the test set too \({train_df['patient_id'][0]}\)"):
        check_findings(findings, "image")


@pytest.mark.parametrize(("kind", "found"), [("listed", "split_listed"), ("copy", "split_copies"), ("alike", "alike")])
def test_pairs_across_folds_are_found_by_name(clean_df, train_df, test_df, kind, found):
    names = pick(clean_df, 0), pick(clean_df, 2)
    findings = audit(clean_df, train_df, test_df, make_pairs((names[0], "train", names[1], "train", kind)))
    assert list(findings) == [found]
    assert findings[found].iloc[0][["image_name", "fold", "other_name", "other_fold"]].tolist() == [
        names[0], 0, names[1], 2]
    words = rf"1 pairs .*\({names[0]} = {names[1]}\)"
    if kind == "alike":
        assert pd.Series(check_findings(findings)).str.match(rf"WARNING: {words}: look at them").tolist() == [True]
    else:
        with pytest.raises(ValueError, match=words):
            check_findings(findings)


def test_a_name_that_train_and_test_share_is_found(clean_df, train_df, test_df):
    shared_df = test_df.assign(image_name=[pick(clean_df, 0), *test_df["image_name"][1:]])
    findings = audit(clean_df, train_df, shared_df)
    assert findings["test_images"]["image_name"].tolist() == [pick(clean_df, 0)] and list(findings) == ["test_images"]
    with pytest.raises(ValueError, match=r"1 images are in test\.csv too"):
        check_findings(findings)


def test_a_lesion_may_be_called_what_a_patient_is(clean_df, train_df, test_df):
    is_external = clean_df["source"] == "external"
    alike_df = clean_df.assign(patient_id=clean_df["patient_id"].str.removeprefix("lesion_"))
    alike_df["fold"] = alike_df["fold"].where(~is_external, (alike_df["fold"] + 1) % 3)  # another fold than theirs
    test_patient = test_df["patient_id"].iloc[0]
    alike_df.loc[alike_df[is_external].index[:1], "patient_id"] = test_patient
    assert not audit(alike_df, train_df, test_df)


def test_copies_of_test_images_are_found_by_name_whatever_their_source(clean_df, train_df, test_df):
    names, test_name = (pick(clean_df, 1), pick(clean_df, 1, "external")), test_df["image_name"][0]
    pairs_df = make_pairs(*((name, split, test_name, "test", "copy")
                            for name, split in zip(names, ("train", "external"), strict=True)))
    findings = audit(clean_df, train_df, test_df, pairs_df)
    assert list(findings) == ["test_copies"]
    with pytest.raises(ValueError, match=rf"2 images are copies of test images \({names[0]} = {test_name}, {names[1]}"):
        check_findings(findings, "image")


def test_external_images_that_the_competition_holds_are_found_in_any_fold(clean_df, train_df, test_df):
    names = pick(clean_df, 1, "external"), pick(clean_df, 1)
    findings = audit(clean_df, train_df, test_df, make_pairs((names[0], "external", names[1], "train", "copy")))
    assert list(findings) == ["external_copies"]
    with pytest.raises(ValueError, match=rf"1 external images are copies .*\({names[0]} = {names[1]}\)"):
        check_findings(findings)


def test_external_copies_of_each_other_are_said_aloud(clean_df, train_df, test_df):
    names = pick(clean_df, 1, "external"), pick(clean_df, 2, "external")
    findings = audit(clean_df, train_df, test_df, make_pairs((names[0], "external", names[1], "external", "copy")))
    assert list(findings) == ["split_external"]
    lines = check_findings(findings)
    assert len(lines) == 1 and names[0] in lines[0] and "AUC on external images is too good" in lines[0]


@pytest.mark.parametrize("change", [
    lambda df, name: df.assign(source=df["source"].mask(df["image_name"] == f"external_{name}", "competition")),
    lambda df, name: df.assign(source=df["source"].mask(df["image_name"] == name, "external")),
    lambda df, name: df.assign(source=df["source"].mask(df["image_name"] == name, "elsewhere")),
])
def test_rows_of_another_source_than_they_say_are_found_by_name(clean_df, train_df, test_df, change):
    name = train_df["image_name"][4]
    findings = audit(change(clean_df, name), train_df, test_df)
    assert list(findings) == ["strange_rows"] and len(findings["strange_rows"]) == 1
    with pytest.raises(ValueError, match=rf"1 rows are not of where their `source` says \(.*{name}\)"):
        check_findings(findings, "image")


def test_an_external_row_that_is_a_test_image_is_found_by_name(clean_df, train_df, test_df):
    name = test_df["image_name"][3]
    renamed_df = clean_df.assign(image_name=clean_df["image_name"].replace(pick(clean_df, 1, "external"), name))
    findings = audit(renamed_df, train_df, test_df)
    assert list(findings) == ["strange_rows"] and findings["strange_rows"]["image_name"].tolist() == [name]


@pytest.mark.parametrize("change", [{"patient_id": "somebody_else"}, {"target": None}])
def test_rows_that_were_changed_are_found_by_name(clean_df, train_df, test_df, change):
    """Under another patient_id a patient in two folds would not be seen."""
    folds_df = clean_df.copy()
    name = folds_df["image_name"][2]
    for column, value in change.items():
        folds_df.loc[2, column] = 1 - folds_df.loc[2, column] if value is None else value
    findings = audit(folds_df, train_df, test_df)
    assert list(findings) == ["changed_rows"] and findings["changed_rows"]["image_name"].tolist() == [name]


def test_image_level_folds_are_warned_of_and_their_other_leaks_refused(clean_df, train_df, test_df):
    folds_df = create_folds(train_df, 3, "image")
    pairs_df = make_pairs((pick(folds_df, 0), "train", pick(folds_df, 1), "train", "copy"))
    findings = audit(folds_df, train_df, test_df, pairs_df)
    assert list(findings) == ["split_patients", "split_copies"]
    lines = check_findings(findings, "image")
    n_patients = len(findings["split_patients"])
    assert n_patients > 10 and f"{n_patients} patients or lesions" in lines[0] and ", …)" in lines[0]
    assert len(lines) == 3 and all(line.startswith("WARNING: ") for line in lines) and "leaks on purpose" in lines[-1]
    with pytest.raises(ValueError, match=f"{n_patients} patients or lesions .*; 1 pairs of copies"):
        check_findings(findings, "patient")
    with pytest.raises(ValueError, match="FOLD_STRATEGY 'lesion' is not one of"):
        check_findings(findings, "lesion")


def test_many_findings_are_counted_and_three_are_named(clean_df, train_df, test_df):
    findings = audit(clean_df.assign(fold=clean_df.index % 3), train_df, test_df)
    with pytest.raises(ValueError) as caught:
        check_findings(findings)
    message, n_patients = str(caught.value), len(findings["split_patients"])
    assert f"{n_patients} patients" in message and message.count("SP_") == 3 and "\n" not in message


def make_store(images, names):
    return ImageStore(np.stack(images), {name: row for row, name in enumerate(names)},
                      {"image_size": images[0].shape[0]})


def draw(seed, size):
    """Returns an image of smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return noise.repeat(size // 8, 0).repeat(size // 8, 1)


@pytest.mark.parametrize(("size", "kind"), [(64, "copy"), (32, "alike")])
def test_copies_that_nobody_has_listed_go_from_pictures_to_findings(clean_df, train_df, test_df, size, kind):
    """One picture under two patients' names, in the test set and among the external images; below 64 px unsure."""
    names, test_name = (pick(clean_df, 0), pick(clean_df, 1)), test_df["image_name"][0]
    external = pick(clean_df, 1, "external")
    brighter = np.minimum(draw(1, size), 249) + 6
    stores = {"train": make_store([draw(1, size), draw(2, size), brighter], [names[0], "other", names[1]]),
              "test": make_store([draw(1, size), draw(3, size)], [test_name, "else"]),
              "external": make_store([draw(4, size), draw(1, size)], ["more", external])}
    pairs_df = find_pairs(stores)
    assert len(pairs_df) == 6 and set(pairs_df["kind"]) == {kind} and (pairs_df["distance"] <= 8).all()
    findings = audit(clean_df, train_df, test_df, pairs_df)
    wanted = ["test_copies", "external_copies", "split_copies"] if kind == "copy" else ["alike"]
    assert sorted(findings) == sorted(wanted)
    assert {*names, test_name, external} <= {name for df in findings.values()
                                             for name in df[["image_name", "other_name"]].to_numpy().ravel()}


def test_listed_pairs_are_known_whether_they_look_alike_or_not():
    stores = {"train": make_store([draw(seed, 64) for seed in (1, 1, 2, 3)], list("abcd")),
              "test": make_store([draw(seed, 64) for seed in (5, 6)], list("yz"))}
    duplicates_df = pd.DataFrame([("b", "a", "train"), ("c", "d", "train"), ("z", "c", "both"), ("y", "z", "test"),
                                  ("a", "absent", "train")], columns=["ISIC_id", "ISIC_id_paired", "partition"])
    pairs_df = find_pairs(stores, duplicates_df)
    ends = [frozenset(pair) for pair in pairs_df[["image_name", "other_name"]].to_numpy()]
    assert dict(zip(ends, pairs_df["distance"].isna(), strict=True)) == {
        frozenset("ab"): False, frozenset("cd"): True, frozenset("cz"): True}
    assert set(pairs_df["kind"]) == {"listed"} and pairs_df["split"].tolist() == ["train"] * 3


@pytest.mark.real
def test_the_real_tables_leak_nothing_by_patient_and_duplicates_by_image(real_dir):
    train_df, test_df = read_train(real_dir / "metadata"), read_test(real_dir / "metadata")
    duplicates_df = read_duplicates(real_dir / "metadata" / "2020_Challenge_duplicates.csv")
    listed_df = duplicates_df[duplicates_df["partition"] == "train"]
    pairs_df = make_pairs(*((one, "train", other, "train", "listed")
                            for one, other in zip(listed_df["ISIC_id"], listed_df["ISIC_id_paired"], strict=True)))
    assert len(pairs_df) == 425 and not audit(create_folds(train_df, 10), train_df, test_df, pairs_df)
    unique_df = drop_duplicates(train_df, duplicates_df)
    assert list(audit(create_folds(unique_df, 10, "image"), train_df, test_df, pairs_df)) == ["split_patients"]
    findings = audit(create_folds(train_df, 10, "image"), train_df, test_df, pairs_df)
    assert list(findings) == ["split_patients", "split_listed"] and len(findings["split_listed"]) > 300


def run_step(*arguments):
    """Returns the status and the last line of a call of the pipeline."""
    done = run_pipeline(*arguments, check=False)
    return done.returncode, done.stderr.splitlines()[-1]


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run that a test may spoil; its experiment's folder."""
    folder = shutil.copytree(finished[0], tmp_path / "copy", copy_function=shutil.copy2)
    return folder, folder / "output" / "tiny"


def test_the_folds_notebook_leaves_what_it_has_found(finished, data_dir):
    folder = finished[0] / "output" / "tiny"
    pairs_df, duplicates_df = (pd.read_csv(path) for path in (folder / PAIRS_FILE,
                                                              data_dir / "2020_Challenge_duplicates.csv"))
    assert (pairs_df["kind"] == "listed").sum() == (duplicates_df["partition"] == "train").sum() > 0
    assert check_folds(folder, read_folds(folder / "folds.csv"), data_dir)


def test_folds_edited_by_hand_stop_03_before_any_work(copied, data_dir):
    folder, experiment_dir = copied
    folds_df = read_folds(experiment_dir / "folds.csv")
    moved = folds_df[folds_df["fold"] == 0].groupby("patient_id")["image_name"].first().iloc[0]
    folds_df.assign(fold=folds_df["fold"].mask(folds_df["image_name"] == moved, 1)).to_csv(
        experiment_dir / "folds.csv", index=False)
    for path in experiment_dir.glob("*fold_1*"):
        path.unlink()
    patient = folds_df.set_index("image_name").loc[moved, "patient_id"]
    status, line = run_step(*place(folder, data_dir), "--steps", "03", "-p", "FOLD", 1)
    assert status == 1 and f"folds.csv leaks: 1 patients or lesions are in several folds ({patient})" in line
    assert not list(experiment_dir.glob("*fold_1*"))
    (experiment_dir / PAIRS_FILE).unlink()
    status, line = run_step(*place(folder, data_dir), "--steps", "03", "-p", "FOLD", 1)
    assert status == 1 and f"{PAIRS_FILE} does not exist: run 02_create_folds" in line


@pytest.mark.parametrize(("file", "change", "message"), [
    ("oof_fold_0.csv", lambda df: df.assign(target=1 - df["target"]), r"another target than folds\.csv for \d+ images"),
    ("test_fold_1.csv", lambda df: df.assign(image_name=["x", *df["image_name"][1:]]),
     r"test_fold_1\.csv in .* and test\.csv differ in 2 images, first SYN_"),
])
def test_tampered_predictions_stop_05_before_the_submission(copied, data_dir, file, change, message):
    folder, experiment_dir = copied
    submission_path = Path(folder, "submissions", "tiny.csv")
    submission_path.unlink()
    change(pd.read_csv(experiment_dir / file)).to_csv(experiment_dir / file, index=False)
    status, line = run_step(*place(folder, data_dir), "--steps", "05")
    assert status == 1 and pd.Series([line]).str.contains(message).all() and not submission_path.exists()
