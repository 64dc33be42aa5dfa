import shutil

import numpy as np
import pandas as pd
import pytest

from melanoma_utils import competition
from melanoma_utils.competition import METADATA_FEATURES, encode_metadata, find_images, read_test, read_train


@pytest.fixture
def folder(data_dir, tmp_path):
    """A competition folder whose tables may be spoilt; the images are links."""
    for name in ("train.csv", "test.csv", "sample_submission.csv", "2020_Challenge_duplicates.csv"):
        shutil.copy(data_dir / name, tmp_path)
    (tmp_path / "jpeg").symlink_to(data_dir / "jpeg")
    return tmp_path


def rewrite(folder, change):
    path = folder / "train.csv"
    path.write_text(change(path.read_text()))


def test_missing_column_is_named(folder):
    rewrite(folder, lambda text: text.replace("age_approx", "age"))
    with pytest.raises(ValueError, match=r"train.csv: column 'age_approx' is missing \(1 of 8"):
        read_train(folder)


def test_repeated_image_is_named_with_its_row_and_count(folder):
    rewrite(folder, lambda text: text + text.splitlines()[1] + "\n" + text.splitlines()[2] + "\n")
    names = pd.read_csv(folder / "train.csv")["image_name"]
    n, name = len(names), names[0]
    with pytest.raises(ValueError, match=rf"'image_name' is repeated in 2 of {n} rows; first in row {n} .*{name}"):
        read_train(folder)


@pytest.mark.parametrize("label", ["2", "", "-1", "x", "0.5"])
def test_label_outside_0_1_is_refused(folder, label):
    df = pd.read_csv(folder / "train.csv", dtype=str)
    df.loc[3, "target"] = label
    df.to_csv(folder / "train.csv", index=False)
    with pytest.raises(ValueError, match=r"train.csv: column 'target' is not 0 or 1 in 1 of \d+ rows; first in row 5"):
        read_train(folder)


def test_missing_file_is_named(data_dir):
    with pytest.raises(FileNotFoundError, match=r"train.csv: column 'image_name' names 1 of 2 images without a file .*"
                                                r"first in row 3 .*: nobody"):
        find_images(data_dir, "train", [read_train(data_dir)["image_name"][0], "nobody"])


def test_bom_and_windows_line_ends_are_read_fine(folder, data_dir):
    (folder / "train.csv").write_bytes(b"\xef\xbb\xbf" + (data_dir / "train.csv").read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(read_train(folder), read_train(data_dir))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"image_name\n"])
def test_no_table_is_a_clear_error(folder, content):
    (folder / "train.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.csv"):
        read_train(folder)


def test_an_age_that_is_no_number_is_refused(folder):
    df = pd.read_csv(folder / "train.csv", dtype=str)
    df.loc[0, "age_approx"] = "old"
    df.to_csv(folder / "train.csv", index=False)
    with pytest.raises(ValueError, match=r"'age_approx' is not a number of years in 1 of"):
        read_train(folder)


@pytest.mark.parametrize(("column", "value", "message"), [
    ("sex", "F", "'sex' is not one of female, male in 1 of"),
    ("anatom_site_general_challenge", "trunk", "'anatom_site_general_challenge' is not one of head/neck, "),
    ("age_approx", "450", "'age_approx' is not in 0 to 120 years in 1 of")])
@pytest.mark.parametrize(("name", "read"), [("train.csv", read_train), ("test.csv", read_test)])
def test_words_that_would_silently_count_as_unknown_are_refused(folder, name, read, column, value, message):
    df = pd.read_csv(folder / name, dtype=str)
    df.loc[2, column] = value
    df.to_csv(folder / name, index=False)
    with pytest.raises(ValueError, match=f"{message}.*first in row 4 .*{value}"):
        read(folder)
    df.loc[2, column] = "unknown" if column != "age_approx" else ""
    df.to_csv(folder / name, index=False)
    found = read(folder)[column][2]
    assert found == "unknown" or (pd.isna(found) and column == "age_approx")


def test_an_image_with_two_files_is_an_error(data_dir, tmp_path):
    shutil.copytree(data_dir / "jpeg" / "train", tmp_path / "train")
    names = read_train(data_dir)["image_name"]
    shutil.copy(tmp_path / "train" / f"{names[0]}.jpg", tmp_path / "train" / f"{names[0]}.png")  # a mask, perhaps
    with pytest.raises(ValueError, match=f"the image {names[0]} has two files, .*jpg and .*png: leave one of them"):
        find_images(tmp_path, "train", names)
    assert len(find_images(tmp_path, "train", names[1:])) == len(names) - 1


def test_images_are_found_in_the_layout_of_the_mirrors(data_dir, tmp_path):
    shutil.copytree(data_dir / "jpeg" / "train", tmp_path / "train")
    names = read_train(data_dir)["image_name"]
    assert list(find_images(tmp_path, "train", names)) == list(names)


def test_the_format_decides_which_files_are_found(tmp_path):
    for path in (tmp_path / "train" / "a.dcm", tmp_path / "jpeg" / "train" / "a.jpg"):
        path.parent.mkdir(parents=True)
        path.touch()
    for image_format, suffix in {"auto": ".jpg", "jpeg": ".jpg", "dicom": ".dcm"}.items():
        assert find_images(tmp_path, "train", ["a"], image_format)["a"].suffix == suffix
    shutil.rmtree(tmp_path / "jpeg")
    assert find_images(tmp_path, "train", ["a"])["a"].suffix == ".dcm"
    with pytest.raises(FileNotFoundError, match="no JPEG images in"):
        find_images(tmp_path, "train", ["a"], "jpeg")
    with pytest.raises(ValueError, match="IMAGE_FORMAT 'tiff'"):
        find_images(tmp_path, "train", ["a"], "tiff")


def test_test_and_sample_must_name_the_same_images(folder):
    sample_df = competition.read_sample_submission(folder)
    competition.check_test_names(competition.read_test(folder), sample_df.iloc[::-1])
    with pytest.raises(ValueError, match="differ in 1 images"):
        competition.check_test_names(competition.read_test(folder), sample_df.iloc[1:])


def test_a_list_of_duplicates_that_is_no_table_is_told_by_name(tmp_path):
    (tmp_path / "pairs.csv").touch()
    with pytest.raises(ValueError, match=r"pairs\.csv can't be read as CSV: No columns"):
        competition.read_duplicates(tmp_path / "pairs.csv")


def test_dropping_duplicates_leaves_one_image_of_each_pair(data_dir):
    train_df = read_train(data_dir)
    a, b, c = train_df["image_name"][:3]
    pairs = pd.DataFrame({"ISIC_id": [a, c], "ISIC_id_paired": [b, "elsewhere"], "partition": "train"})
    left = competition.drop_duplicates(train_df, pairs)["image_name"]
    assert set(train_df["image_name"]) - set(left) == {b}


@pytest.mark.parametrize(("pairs", "dropped"), [
    ([(0, 1), (1, 0)], {1}), ([(1, 0)], {0}), ([(1, 2), (2, 0), (0, 1)], {1, 2}), ([(3, 3)], set()),
    ([(0, 1), (1, 2)], {1, 2}), ([(0, 2), (1, 2)], {2}), ([], set())])
def test_pairs_in_both_orders_and_in_circles_leave_an_image(data_dir, pairs, dropped):
    train_df = read_train(data_dir)
    names = train_df["image_name"].to_numpy()
    duplicates_df = pd.DataFrame([(names[i], names[j], "train") for i, j in pairs],
                                 columns=["ISIC_id", "ISIC_id_paired", "partition"], dtype=object)
    left = competition.drop_duplicates(train_df, duplicates_df)["image_name"]
    assert set(names) - set(left) == {names[i] for i in dropped}


def test_metadata_gives_missing_values_a_category_of_their_own():
    df = pd.DataFrame({"sex": ["male", None], "age_approx": [45.0, np.nan],
                       "anatom_site_general_challenge": ["torso", "the moon"]})
    known, unknown = (dict(zip(METADATA_FEATURES, row, strict=True)) for row in encode_metadata(df))
    assert known["sex=male"] == known["site=torso"] == 1 and known["age"] == np.float32(0.45)
    assert unknown["sex=unknown"] == unknown["site=unknown"] == unknown["age=unknown"] == 1
    assert sum(known.values()) == pytest.approx(2.45) and sum(unknown.values()) == 3


@pytest.mark.real
def test_the_real_tables(real_dir):
    train_df = read_train(real_dir / "metadata")
    pairs = competition.read_duplicates(competition.find_duplicates_csv(real_dir / "metadata"))
    assert (len(train_df), train_df["patient_id"].nunique(), train_df["target"].sum()) == (33126, 2056, 584)
    assert len(competition.drop_duplicates(train_df, pairs)) == 32701
    assert len(competition.read_test(real_dir / "metadata")) == 10982
