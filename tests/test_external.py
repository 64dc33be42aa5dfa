import shutil
import zipfile

import pandas as pd
import pytest

from melanoma_utils.competition import SITES, TRAIN_COLUMNS, read_train
from melanoma_utils.external import find_external_images, read_external
from melanoma_utils.synthetic_formats import write_external


@pytest.fixture
def folder(data_dir, tmp_path):
    write_external(data_dir, tmp_path / "isic")
    return tmp_path / "isic"


def change(path, function):
    df = pd.read_csv(path, dtype=str)
    function(df).to_csv(path, index=False)


TRUTH, METADATA = "ISIC_2019_Training_GroundTruth.csv", "ISIC_2019_Training_Metadata.csv"


def test_rows_are_in_the_competitions_terms(folder, data_dir):
    df, train_df = read_external(folder), read_train(data_dir)
    assert list(df) == list(TRAIN_COLUMNS)
    for column in ("image_name", "patient_id", "target", "sex", "age_approx", "anatom_site_general_challenge"):
        pd.testing.assert_series_equal(df[column], train_df[column], check_dtype=False)
    assert set(df["anatom_site_general_challenge"].dropna()) <= set(SITES)
    assert (df["diagnosis"][df["target"] == 1] == "melanoma").all()


def test_classes_become_diagnosis_and_target(tmp_path):
    codes = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC", "SCC"]
    one_hot = [[float(code == other) for other in codes] for code in codes]
    pd.DataFrame(one_hot, columns=codes).assign(image=codes).to_csv(tmp_path / "truth.csv", index=False)
    pd.DataFrame({"image": codes[1:], "lesion_id": ["L1", "L1", *[None] * 5]}).to_csv(tmp_path / "m.csv", index=False)
    df = read_external(tmp_path).set_index("image_name")
    assert df["target"].to_dict() == {code: int(code == "MEL") for code in codes}
    assert df["benign_malignant"][["MEL", "NV", "BCC", "AKIEC"]].tolist() == ["malignant", "benign", "malignant",
                                                                              "premalignant"]
    assert df["patient_id"].tolist() == ["MEL", "L1", "L1", "AKIEC", "BKL", "DF", "VASC", "SCC"]
    assert df["sex"].isna().all() and df["diagnosis"].nunique() == 8


@pytest.mark.parametrize(("table", "function", "message"), [
    (TRUTH, lambda df: df.assign(MEL="1.0"), "GroundTruth.*not of just one class in [0-9]+ rows, first in row [23]"),
    (TRUTH, lambda df: df.rename(columns={"BKL": "XYZ"}), "the class 'XYZ' is not one of"),
    (TRUTH, lambda df: pd.concat([df, df[:1]]), "'image' is empty or repeated in 1 rows"),
    (METADATA, lambda df: df.assign(anatom_site_general="toe"), "'toe'"),
    (METADATA, lambda df: df.assign(age_approx="old"), "'age_approx' is no number of years"),
    (METADATA, lambda df: df.drop(columns="lesion_id"), "holds 0 CSV tables with the columns image and lesion_id"),
])
def test_what_is_wrong_is_named(folder, table, function, message):
    change(folder / table, function)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_external(folder)


def test_the_row_that_is_told_is_the_metadata_s(folder):
    """The tables are in different orders, and the metadata tell of other images as well."""
    change(folder / METADATA, lambda df: df[::-1].assign(age_approx=["50"] * (len(df) - 3) + ["old", "50", "50"]))
    n = len(pd.read_csv(folder / METADATA))
    with pytest.raises(ValueError, match=f"'age_approx' is no number of years in 1 rows, first in row {n - 1} "):
        read_external(folder)
    change(folder / TRUTH, lambda df: df[df["image"] != pd.read_csv(folder / METADATA)["image"][n - 3]])
    assert len(read_external(folder)) == n - 1


def test_a_second_table_or_no_folder_is_an_error(folder):
    shutil.copy(folder / TRUTH, folder / "again.csv")
    with pytest.raises(ValueError, match="holds 2 CSV tables with the columns image and MEL"):
        read_external(folder)
    with pytest.raises(FileNotFoundError, match=r"EXTERNAL_DIR .*nowhere is not a folder"):
        read_external(folder / "nowhere")


def test_images_are_found_in_folders_and_archives(folder):
    names = read_external(folder)["image_name"].tolist()
    images = folder / "ISIC_2019_Training_Input"
    assert list(find_external_images(folder, names)) == names
    with zipfile.ZipFile(folder / "ISIC_2019_Training_Input.zip", "w") as archive:
        archive.write(images / f"{names[0]}.jpg", f"ISIC_2019_Training_Input/{names[0]}.jpg")
    content = (images / f"{names[0]}.jpg").read_bytes()
    (images / f"{names[0]}.jpg").unlink()
    found = find_external_images(folder, names)
    assert found[names[0]].read_bytes() == content and found[names[1]].read_bytes()
    (images / f"{names[1]}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of {len(names)} images .* first {names[1]}"):
        find_external_images(folder, names)


def test_an_image_that_has_two_files_is_an_error(folder):
    names = read_external(folder)["image_name"].tolist()
    (folder / "masks").mkdir()
    shutil.copy(folder / "ISIC_2019_Training_Input" / f"{names[2]}.jpg", folder / "masks" / f"{names[2]}.png")
    with pytest.raises(ValueError, match=f"the image {names[2]} has two files, .*{names[2]}.jpg and .*{names[2]}.png"):
        find_external_images(folder, names)
    assert len(find_external_images(folder, names[:2])) == 2


@pytest.mark.real
def test_ham10000_is_read(real_dir):
    df = read_external(real_dir / "ham10000")
    assert (len(df), df["target"].sum(), df["patient_id"].nunique()) == (10008, 1106, 7465)
    assert set(df["anatom_site_general_challenge"].dropna()) <= set(SITES)
    assert len(find_external_images(real_dir / "ham10000", df["image_name"])) == 10008
