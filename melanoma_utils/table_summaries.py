"""What a competition's tables show, counted for charts."""

from collections.abc import Collection, Mapping

import pandas as pd

from melanoma_utils.competition import METADATA_COLUMNS

DECADES = range(0, 91, 10)  # where an age group begins, years; the last one is open
COUNT_EDGES = {0: "1 to 3", 3: "4 to 7", 7: "8 to 15", 15: "16 to 31", 31: "32 to 63", 63: "64 or more"}
UNKNOWN = "(missing)"


def count_classes(train_df: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Returns the numbers of benign images and melanomas, and of patients without and with one, for `plots.plot_bars`.

    Args:
        train_df: (N, …) table with the columns target and patient_id.
    """
    n_images = train_df["target"].value_counts().reindex([0, 1], fill_value=0)
    n_patients = train_df.groupby("patient_id")["target"].max().value_counts().reindex([0, 1], fill_value=0)
    return {"images": {"benign": int(n_images[0]), "melanoma": int(n_images[1])},
            "patients": {"only benign": int(n_patients[0]), "melanoma": int(n_patients[1])}}


def share_missing(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns the share of empty cells of sex, age and site, a row each, a column a table, for `plots.plot_shares`.

    Args:
        tables: "train", "test" -> (N, …) table.
    """
    missing = pd.DataFrame({split: df[list(METADATA_COLUMNS)].isna().mean() for split, df in tables.items()})
    counts = {column: ", ".join(f"{split} {df[column].isna().sum():,}" for split, df in tables.items())
              for column in METADATA_COLUMNS}
    return missing.rename(lambda column: f"{column}\n({counts[column]})")


def name_decades(ages: pd.Series) -> pd.Series:
    """Returns ages in years as ordered groups, "0 to 9", "10 to 19", … "80 to 89", "90 or more"."""
    labels = [*(f"{age} to {age + 9}" for age in DECADES[:-1]), f"{DECADES[-1]} or more"]
    return pd.cut(ages, [*DECADES, float("inf")], right=False, labels=labels)


def share_groups(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Returns the shares of age groups, sexes and sites where they are known, for `plots.plot_shares`.

    Args:
        tables: "train", "test" -> (N, …) table.
    """
    columns = {"age, years": lambda df: name_decades(df["age_approx"]), "sex": lambda df: df["sex"],
               "site": lambda df: df["anatom_site_general_challenge"]}
    return {name: pd.DataFrame({split: pick(df).value_counts(normalize=True, sort=name != "age, years")
                                for split, df in tables.items()}).fillna(0) for name, pick in columns.items()}


def name_image_counts(df: pd.DataFrame) -> pd.Series:
    """Returns for each row how many images its patient has, as ordered groups, "1 to 3", … "64 or more".

    Args:
        df: (N, …) table with the column patient_id.
    """
    n_of_patient = df.groupby("patient_id")["patient_id"].transform("size")
    return pd.cut(n_of_patient, [*COUNT_EDGES, float("inf")], labels=list(COUNT_EDGES.values()))


def select_rows(df: pd.DataFrame, sexes: Collection[str], sites: Collection[str],
                ages: tuple[float, float], with_unknown_age: bool) -> pd.DataFrame:
    """Returns the rows of these sexes and sites (`UNKNOWN`: where it is missing or called unknown) and of these ages.

    Args:
        df: (N, …) table with the columns sex, age_approx (years) and anatom_site_general_challenge.
        sexes, sites: the values to keep.
        ages: lowest and highest age to keep, years.
        with_unknown_age: whether rows without an age are kept.
    """
    age = df["age_approx"]
    sex, site = (df[column].replace("unknown", UNKNOWN).fillna(UNKNOWN)
                 for column in ("sex", "anatom_site_general_challenge"))
    is_in = sex.isin(sexes) & site.isin(sites)
    return df[is_in & (age.between(*ages) | (age.isna() & with_unknown_age))]
