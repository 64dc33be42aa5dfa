import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from melanoma_utils.competition import read_train
from melanoma_utils.folds import (
    adopt_folds,
    create_folds,
    measure_patient_leak,
    read_folds,
    score_by_patient_memory,
    split_by_fold,
    write_folds,
)


def test_no_patient_is_in_two_folds_and_each_image_in_one(data_dir):
    train_df = read_train(data_dir)
    folds_df = create_folds(train_df, 5, "patient", seed=3)
    assert folds_df.groupby("patient_id")["fold"].nunique().max() == 1
    assert folds_df["image_name"].tolist() == train_df["image_name"].tolist()
    assert set(folds_df["fold"]) == set(range(5))


def test_the_seed_decides(data_dir):
    train_df = read_train(data_dir)
    first, again, other = (create_folds(train_df, 4, seed=seed)["fold"].tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_image_level_folds_leak_and_patient_level_ones_do_not():
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 100, 1000)
    df = pd.DataFrame({"image_name": np.arange(1000).astype(str), "patient_id": patient,
                       "target": (rng.random(1000) < np.where(patient < 20, 0.8, 0.05)).astype(int)})
    aucs, leaks = {}, {}
    for strategy in ("patient", "image"):
        folds_df = create_folds(df, 5, strategy)
        aucs[strategy] = roc_auc_score(folds_df["target"], score_by_patient_memory(folds_df))
        leaks[strategy] = measure_patient_leak(folds_df)["leak"].max()
    assert aucs["patient"] == 0.5 and aucs["image"] > 0.8
    assert leaks["patient"] == 0 and leaks["image"] > 0.9


def test_a_fold_out_of_range_is_refused(folds_df):
    for fold in (-1, 3):
        with pytest.raises(ValueError, match=rf"fold {fold} is not in 0\.\.2 \(folds.csv has 3 folds\)"):
            split_by_fold(folds_df, fold)


def test_split_by_fold_parts_the_rows(folds_df):
    train_df, valid_df, external_df = split_by_fold(folds_df, 1)
    assert external_df.empty
    assert set(valid_df["fold"]) == {1} and set(train_df["fold"]) == {0, 2}
    assert len(train_df) + len(valid_df) == len(folds_df)


@pytest.mark.parametrize("n_folds", [0, 1, 25])
def test_impossible_numbers_of_folds_are_refused(data_dir, n_folds):
    with pytest.raises(ValueError, match=rf"N_FOLDS {n_folds} is not in 2\.\.24"):
        create_folds(read_train(data_dir), n_folds)


def test_few_patients_with_melanomas_have_folds_by_image_alone(data_dir):
    train_df = read_train(data_dir)
    train_df["patient_id"] = np.where(train_df["target"] == 1, "p", "q")
    assert create_folds(train_df, 3, "image")["fold"].nunique() == 3
    with pytest.raises(ValueError, match=r"N_FOLDS 3 is not in 2\.\.2 .* 2 patients"):
        create_folds(train_df, 3)
    with pytest.raises(ValueError, match=r"the external images .* 0 melanomas, .* can't be in folds: each wants"):
        create_folds(train_df.assign(target=0), 3, source="external")


@pytest.mark.parametrize("strategy", ["patient", "image"])
def test_an_image_of_nobody_is_refused(data_dir, strategy):
    train_df = read_train(data_dir)
    train_df.loc[[3, 5], "patient_id"] = None
    with pytest.raises(ValueError, match=rf"patient_id is missing for 2 of 97 competition images, first "
                                         rf"{train_df['image_name'][3]}"):
        create_folds(train_df, 3, strategy)


@pytest.mark.parametrize(("change", "message"), [
    ({"patient_id": None}, "column 'patient_id' is empty in 1 of 97 rows, first in that of NAME: run 02"),
    ({"image_name": "OTHER"}, "column 'image_name' is repeated in 1 of 97 rows, first in that of OTHER"),
    ({"image_name": None}, "column 'image_name' is empty"), ({"target": 2}, "column 'target' is not 0 or 1"),
    ({"fold": -1}, "column 'fold' is not 0, 1, 2, …"), ({"fold": 0.5}, "column 'fold' is not 0, 1, 2, …"),
    ({"fold": None}, "column 'fold' is not 0, 1, 2, …"), ({"fold": "x"}, "column 'fold' is not 0, 1, 2, …"),
    ({"fold": 7}, "4 folds have images, the last one is fold 7"),
])
def test_folds_edited_into_something_else_are_refused(folds_df, tmp_path, change, message):
    edited_df = folds_df.astype(object)
    for column, value in change.items():
        edited_df.loc[4, column] = folds_df["image_name"][2] if value == "OTHER" else value
    edited_df.to_csv(tmp_path / "folds.csv", index=False)
    names = {"NAME": folds_df["image_name"][4], "OTHER": folds_df["image_name"][2]}
    for key, name in names.items():
        message = message.replace(key, name)
    with pytest.raises(ValueError, match=message):
        read_folds(tmp_path / "folds.csv")


def test_a_fold_of_one_class_is_refused():
    df = pd.DataFrame({"image_name": list("abcdef"), "patient_id": list("ppqqrr"), "target": [1, 1, 0, 0, 0, 0]})
    with pytest.raises(ValueError, match="would hold one class only"):
        create_folds(df, 2)


def test_unknown_strategy_is_refused(data_dir):
    with pytest.raises(ValueError, match="FOLD_STRATEGY 'lesion' is not one of"):
        create_folds(read_train(data_dir), 2, "lesion")


def test_folds_under_trained_models_are_not_replaced(folds_df, tmp_path):
    path = tmp_path / "folds.csv"
    write_folds(path, folds_df)
    write_folds(path, folds_df.assign(fold=0))  # nothing is trained yet
    write_folds(path, folds_df)
    (tmp_path / "fold_0.safetensors").touch()
    write_folds(path, folds_df)  # the same ones
    with pytest.raises(ValueError, match="holds other folds"):
        write_folds(path, folds_df.assign(fold=0))
    assert read_folds(path)["fold"].tolist() == folds_df["fold"].tolist()


def test_missing_folds_say_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run 02_create_folds first"):
        read_folds(tmp_path / "folds.csv")


@pytest.mark.real
def test_the_leak_of_image_level_folds_on_the_real_table(real_dir):
    train_df = read_train(real_dir / "metadata")
    leaky_df, grouped_df = (create_folds(train_df, 10, strategy) for strategy in ("image", "patient"))
    assert measure_patient_leak(leaky_df)["leak"].mean() > 0.999
    assert roc_auc_score(leaky_df["target"], score_by_patient_memory(leaky_df)) == pytest.approx(0.75, abs=0.01)
    assert roc_auc_score(grouped_df["target"], score_by_patient_memory(grouped_df)) == 0.5
    assert grouped_df.groupby("fold")["target"].sum().between(57, 60).all()


def test_external_rows_are_trained_on_and_left_out_apart(folds_df):
    names = [f"external_{name}" for name in folds_df["image_name"]]
    external_df = create_folds(folds_df.drop(columns=["fold", "source"]).assign(image_name=names), 3, source="external")
    both_df = pd.concat([folds_df, external_df], ignore_index=True)
    for fold in range(3):
        train_df, valid_df, left_out_df = split_by_fold(both_df, fold)
        assert set(valid_df["source"]) == {"competition"} and set(left_out_df["source"]) == {"external"}
        assert set(train_df["source"]) == {"competition", "external"} and fold not in set(train_df["fold"])
        assert valid_df["image_name"].tolist() == folds_df[folds_df["fold"] == fold]["image_name"].tolist()
        assert not set(left_out_df["patient_id"]) & set(train_df[train_df["source"] == "external"]["patient_id"])
    with pytest.raises(ValueError, match="the source 'extern' is not one of"):
        create_folds(folds_df, 3, source="extern")


def test_folds_of_before_there_were_external_images_stay_valid(folds_df, tmp_path):
    older = folds_df.drop(columns="source").to_csv(index=False)
    (tmp_path / "folds.csv").write_text(older)
    (tmp_path / "fold_0.safetensors").touch()
    write_folds(tmp_path / "folds.csv", folds_df)
    assert (tmp_path / "folds.csv").read_text() == older
    assert set(read_folds(tmp_path / "folds.csv")["source"]) == {"competition"}
    with pytest.raises(ValueError, match="holds other folds"):
        write_folds(tmp_path / "folds.csv", folds_df.assign(age_approx=folds_df["age_approx"] + 5))


def test_adopted_folds_are_those_of_the_other_to_the_byte(folds_df, tmp_path):
    write_folds(tmp_path / "a" / "folds.csv", folds_df.iloc[2:])  # it had dropped two images
    twice_df = pd.concat([folds_df, folds_df.head(1)])  # an external image of the same name
    write_folds(tmp_path / "b" / "folds.csv", adopt_folds(tmp_path / "a" / "folds.csv", twice_df, False, 3, "patient"))
    assert (tmp_path / "a" / "folds.csv").read_bytes() == (tmp_path / "b" / "folds.csv").read_bytes()


def test_folds_of_other_images_or_targets_are_not_adopted(folds_df, tmp_path):
    write_folds(tmp_path / "folds.csv", folds_df)
    with pytest.raises(ValueError, match=r"holds 3 images that are not among these, .* first SYN_"):
        adopt_folds(tmp_path / "folds.csv", folds_df.iloc[3:], False, 3, "patient")
    with pytest.raises(ValueError, match=f"holds {len(folds_df)} images"):
        adopt_folds(tmp_path / "folds.csv", folds_df.assign(target=1 - folds_df["target"]), False, 3, "patient")
    with pytest.raises(ValueError, match="holds no external images: FOLDS_FROM wants"):
        adopt_folds(tmp_path / "folds.csv", folds_df, True, 3, "patient")
    with pytest.raises(ValueError, match="has 3 folds: say N_FOLDS so"):
        adopt_folds(tmp_path / "folds.csv", folds_df, False, 10, "patient")
    write_folds(tmp_path / "image" / "folds.csv", create_folds(folds_df, 3, "image"))
    with pytest.raises(ValueError, match="patients in two folds"):
        adopt_folds(tmp_path / "image" / "folds.csv", folds_df, False, 3, "patient")
