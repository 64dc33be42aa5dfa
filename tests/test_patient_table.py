"""A table that somebody gives beside pictures: what is taken from it, and what is said of the rest."""

import pandas as pd
import pytest

from melanoma_utils import patient_table
from melanoma_utils.archives import MemoryFile
from melanoma_utils.patient_table import describe_pictures, read_patient_table, spread_sex

TABLE = b"""image_name,patient_id,sex,age_approx,anatom_site_general_challenge
a.JPG,p,female,45,torso
b,p,female,45,palms/soles
c,p,,,
"""


def read(content):
    return read_patient_table(MemoryFile("table.csv", content))


def test_each_picture_gets_its_row_and_an_empty_cell_is_unknown():
    df, problems = describe_pictures(["c", "b", "a"], read(TABLE))
    assert df.loc["a"].tolist() == ["p", "female", 45, "torso"] and df.loc["b", "age_approx"] == 45
    assert df.loc["c"].isna().tolist() == [False, True, True, True]
    assert list(df.index) == ["c", "b", "a"] and not problems


def test_what_is_said_of_the_person_goes_before_the_table():
    df, _ = describe_pictures(["a", "c", "other"], read(TABLE), sex="male", age=70)
    assert df["sex"].tolist() == ["male"] * 3 and df["age_approx"].tolist() == [70] * 3
    assert df["anatom_site_general_challenge"].isna().tolist() == [False, True, True]


def test_without_a_table_all_is_unknown():
    df, problems = describe_pictures(["a"], None)
    assert df.isna().all(axis=None) and df["age_approx"].dtype == float and not problems


def test_columns_that_are_missing_are_unknown():
    df, _ = describe_pictures(["a"], read(b"image_name,sex\na,male\n"))
    assert df.loc["a", "sex"] == "male" and df.loc["a"].isna().sum() == 3


def test_rows_without_a_picture_are_counted_and_named():
    _, problems = describe_pictures(["b"], read(TABLE))
    assert problems == ["2 of 3 rows of the table name a picture that is not here, first a."]


def test_folders_need_no_mention_unless_that_would_mean_two_pictures():
    assert describe_pictures(["left/a"], read(TABLE))[0].loc["left/a", "sex"] == "female"
    df, problems = describe_pictures(["left/a", "right/a"], read(TABLE))
    assert df.isna().all(axis=None) and problems[0].startswith("3 of 3 rows")


def test_a_table_may_name_the_files():
    table_df = read(b"image_name,sex\na.webp,male\nleft/b.TIF,female\nc.jpg,female\nc.png,male\n")
    df, problems = describe_pictures(["a", "left/b", "c.jpg", "c.png"], table_df)  # these two keep their endings
    assert df["sex"].tolist() == ["male", "female", "female", "male"] and not problems
    with pytest.raises(ValueError, match="two rows for the picture 'c': leave one out"):
        describe_pictures(["a", "c"], table_df)
    df, problems = describe_pictures(["a"], table_df)  # two rows for a picture that is not here are no matter
    assert df["sex"].tolist() == ["male"] and problems[0].startswith("3 of 4 rows")


def test_words_that_no_model_knows_are_told_and_unknown():
    content = b"image_name,sex,age_approx,anatom_site_general_challenge\na,X,450,hand\nb,X,30,torso\n"
    df, problems = describe_pictures(["a", "b"], read(content))
    assert df.loc["a"].isna().all() and df.loc["b"].isna().tolist() == [True, True, False, False]
    assert problems == [
        "The table's sex 'X' of a is not one of female, male: it is passed over (2 such).",
        "The table's site 'hand' of a is not one of head/neck, lower extremity, oral/genital, "
        "palms/soles, torso, upper extremity: it is passed over (1 such).",
        "The table's age '450' of a is not in 0 to 120 years: it is passed over (1 such)."]


def test_an_age_in_words_is_told_and_the_others_count():
    df, problems = describe_pictures(["a", "b", "c"], read(b"image_name,age_approx\na,forty\nb,45\nc,45 years\n"))
    assert df["age_approx"].isna().tolist() == [True, False, True] and df.loc["b", "age_approx"] == 45
    assert df["age_approx"].dtype == float
    assert problems == ["The table's age 'forty' of a is not in 0 to 120 years: it is passed over (2 such)."]


def test_words_of_clinics_are_understood():
    content = b"image_name,sex,anatom_site_general_challenge\na,F, Back\nb,M,TORSO\nc,Male,lower leg\nd,,\n"
    df, problems = describe_pictures(["a", "b", "c", "d"], read(content))
    assert df["sex"].tolist()[:3] == ["female", "male", "male"] and not problems
    assert df["anatom_site_general_challenge"].tolist()[:3] == ["torso", "torso", "lower extremity"]
    assert df.loc["d"].isna().all()


@pytest.mark.parametrize(("content", "message"), [
    (b"", "can't be read as CSV"),
    (b"\xff\xfe\x00\x01", "can't be read as CSV"),
    (b"name,sex\na,male\n", "column 'image_name' is missing"),
    (b"image_name\na\na\n", "'image_name' is repeated"),
    (b"image_name\n", "has 0 rows"),
])
def test_no_table_is_told_by_name(content, message):
    with pytest.raises(ValueError, match=rf"table\.csv.*{message}"):
        read(content)


def test_a_table_of_many_megabytes_is_not_read(monkeypatch):
    monkeypatch.setattr(patient_table, "MAX_TABLE_MEGABYTES", 0)
    with pytest.raises(ValueError, match=r"table\.csv has 0 MB, more than the 0 that a table may have"):
        read(TABLE)


def test_an_answer_can_be_encoded_for_a_model():
    from melanoma_utils.competition import encode_metadata
    assert encode_metadata(describe_pictures(["a", "c"], read(TABLE))[0]).sum(axis=1) == pytest.approx([2.45, 3])
    assert isinstance(describe_pictures([], None)[0], pd.DataFrame)


def test_a_person_has_the_sex_that_any_picture_tells_unless_they_tell_two():
    df = pd.DataFrame({"sex": [None, "male", None], "age_approx": [40.0, None, 45.0]}, list("abc"))
    spread_df, problems = spread_sex(df)
    assert spread_df["sex"].tolist() == ["male"] * 3 and not problems
    pd.testing.assert_series_equal(spread_df["age_approx"], df["age_approx"])
    mixed_df = df.assign(sex=["female", "male", None])
    same_df, problems = spread_sex(mixed_df)
    assert same_df is mixed_df and "two sexes of one person" in problems[0]
    assert spread_sex(df.assign(sex=None))[0]["sex"].isna().all()


def test_semicolons_and_commas_of_other_countries_are_understood():
    df, problems = describe_pictures(["a"], read(b"image_name;sex;age_approx\r\na;female;45,5\r\n"))
    assert df.loc["a", ["sex", "age_approx"]].tolist() == ["female", 45.5] and not problems
