"""Features of an image beside the other images of its patient, computed without any label."""

import numpy as np
import pandas as pd

from melanoma_utils.competition import METADATA_FEATURES, SITES, encode_metadata

KINDS = ("lesion", "collection")
# name: (what it reads, kind, meaning, value for the only image of a patient). "lesion" describes the lesion or the
# person; "collection" how many pictures were taken when and of what, which another clinic may do in another way.
CONTEXT_FEATURES = {
    "share_same_site": ("table", "collection", "share of the patient's other images that show the same site", 0.0),
    "n_images": ("table", "collection", "number of the patient's images, log", 0.0),
    "n_visits": ("table", "collection", "number of ages at which the patient has images, log", 0.0),
    "n_same_visit": ("table", "collection", "number of the patient's images at this age, log", 0.0),
    "share_same_visit": ("table", "collection", "share of the patient's other images taken at the same age", 0.0),
    "n_sites": ("table", "collection", "number of sites of which the patient has images, log", 0.0),
    "n_same_site": ("table", "collection", "number of the patient's images of this site, log", 0.0),
    "visit_rank": ("table", "collection", "mean rank of the age among the patient's images, 0 to 1", 0.5),
    "years_since_first": ("table", "collection", "years since the patient's first image", 0.0),
    "years_until_last": ("table", "collection", "years until the patient's last image", 0.0),
    "age_difference": ("table", "collection", "age minus the patient's median age, years", 0.0),
    "logit_rank": ("logit", "lesion", "mean rank of the logit among the patient's images, 0 to 1", 0.5),
    "logit_z": ("logit", "lesion", "logit minus the patient's mean, in the patient's standard deviations", 0.0),
    "logit_difference": ("logit", "lesion", "logit minus the patient's median logit", 0.0),
    "duckling_z": ("embedding", "lesion", "distance from the patient's other lesions, against that of the others, in "
                   "standard deviations", 0.0),
    "duckling_difference": ("embedding", "lesion", "the same distance minus the patient's median one", 0.0),
}


def describe_features() -> pd.DataFrame:
    """Returns one row a feature of `CONTEXT_FEATURES`: index feature; columns reads ("table", "logit" or "embedding"),
    kind (of `KINDS`), meaning, alone (the value where a patient has one image)."""
    columns = ["reads", "kind", "meaning", "alone"]
    return pd.DataFrame.from_dict(CONTEXT_FEATURES, orient="index", columns=columns).rename_axis("feature")


def select_features(features_df: pd.DataFrame, kinds: tuple[str, ...] = ("lesion",)) -> pd.DataFrame:
    """Returns the columns of these kinds, in their order.

    Sex, age, site and the logit itself, which need no other image, are of the kind "lesion".

    Args:
        features_df: (N, n_features) table of `make_features`.
        kinds: out of `KINDS`.

    Raises:
        ValueError: a kind is unknown.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(f"the kind {unknown[0]!r} is not one of {KINDS}")
    return features_df[[name for name in features_df
                        if (CONTEXT_FEATURES[name][1] if name in CONTEXT_FEATURES else "lesion") in kinds]]


def make_features(df: pd.DataFrame, embeddings_df: pd.DataFrame | None = None) -> pd.DataFrame:
    """Returns all features that these columns allow, (N, n_features) float64 by image_name.

    Args:
        df: (N, …) table of all images of each patient, with the columns image_name, patient_id, sex, age_approx (years)
            and anatom_site_general_challenge; a column logit adds it and its features.
        embeddings_df: (N, n_dimensions) embeddings by image_name, which add theirs; None: none.

    Raises:
        ValueError: an image_name is repeated, a patient_id missing, a logit not finite, an image without embedding.
    """
    _check_rows(df)
    metadata = pd.DataFrame(encode_metadata(df).astype(np.float64), df["image_name"], METADATA_FEATURES)
    parts = [metadata, compute_table_context(df)]
    if "logit" in df:
        parts += [df.set_index("image_name")["logit"].astype(np.float64), compute_logit_context(df)]
    if embeddings_df is not None:
        parts.append(compute_embedding_context(df, embeddings_df))
    return pd.concat(parts, axis=1)


def _check_rows(df: pd.DataFrame) -> None:
    repeated = df["image_name"][df["image_name"].duplicated()]
    if len(repeated):
        raise ValueError(f"{len(repeated)} image_names are repeated, first {repeated.iloc[0]}")
    if df["patient_id"].isna().any():
        raise ValueError(f"{int(df['patient_id'].isna().sum())} of {len(df)} images have no patient_id, first "
                         f"{df['image_name'][df['patient_id'].isna()].iloc[0]}: give an unknown patient a name of its "
                         "own for each image")


def compute_table_context(df: pd.DataFrame) -> pd.DataFrame:
    """Returns the features that read the table alone, by image_name; for args and errors see `make_features`.

    A visit is an age of the patient, as far as the table tells visits apart (age_approx has steps of five years). A
    missing age is taken for the patient's median age, and for 0 where the patient has none. A missing or unheard-of
    site is like no other image's, and not counted among the sites.
    """
    _check_rows(df)
    site = df["anatom_site_general_challenge"]
    site = site.where(site.isin(SITES))
    patient, age = df["patient_id"], df["age_approx"]
    age = age.fillna(age.groupby(patient).transform("median")).fillna(0)
    ages, sites = age.groupby(patient), site.groupby(patient)
    n, n_same_visit = ages.transform("size"), age.groupby([patient, age]).transform("size")
    n_same_site = site.groupby([patient, site]).transform("size").fillna(1)
    n_others = (n - 1).clip(lower=1)  # an only image has no other one, and a share of 0
    features = {
        "share_same_site": (n_same_site - 1) / n_others, "n_images": np.log(n),
        "n_visits": np.log(ages.transform("nunique")), "n_same_visit": np.log(n_same_visit),
        "share_same_visit": (n_same_visit - 1) / n_others, "n_sites": np.log(sites.transform("nunique").clip(lower=1)),
        "n_same_site": np.log(n_same_site), "visit_rank": (ages.rank() - 0.5) / n,
        "years_since_first": age - ages.transform("min"), "years_until_last": ages.transform("max") - age,
        "age_difference": age - ages.transform("median"),
    }
    return pd.DataFrame(features).set_axis(pd.Index(df["image_name"]))


def compute_logit_context(df: pd.DataFrame) -> pd.DataFrame:
    """Returns the features that read a model's logits, by image_name.

    Within a patient, whatever shifts all of the patient's logits drops out: the skin, the camera, and which of the
    folds' models it was. So a patient's logits must all be of one model, or each the mean of the same models.

    Args:
        df: (N, …) table with the columns image_name, patient_id and logit.

    Raises:
        ValueError: an image_name is repeated, a patient_id missing, or a logit not finite.
    """
    _check_rows(df)
    logit, patient = df["logit"].astype(np.float64), df["patient_id"]
    if not np.isfinite(logit).all():
        raise ValueError(f"{int((~np.isfinite(logit)).sum())} of {len(df)} logits are not finite")
    logits = logit.groupby(patient)
    features = {"logit_rank": (logits.rank() - 0.5) / logits.transform("size"),
                "logit_z": _standardize(logit, patient), "logit_difference": logit - logits.transform("median")}
    return pd.DataFrame(features).set_axis(pd.Index(df["image_name"]))


def compute_embedding_context(df: pd.DataFrame, embeddings_df: pd.DataFrame) -> pd.DataFrame:
    """Returns how far a lesion looks from the patient's other lesions (the ugly duckling), by image_name.

    The distance is the mean Euclidean one to the patient's other images; the features compare it with that of the
    others. With two images both distances are the same, so both features are 0.

    Args:
        df: (N, …) table with the columns image_name and patient_id.
        embeddings_df: (N, n_dimensions) float by image_name; a patient's must all be of one model. Further rows are no
            matter.

    Raises:
        ValueError: an image_name is repeated, a patient_id missing, an image without or with a non-finite embedding.
    """
    _check_rows(df)
    embeddings = embeddings_df.reindex(df["image_name"]).to_numpy(np.float64)  # (N, n_dimensions)
    is_bad = ~np.isfinite(embeddings).all(1)
    if is_bad.any():
        raise ValueError(f"{int(is_bad.sum())} of {len(df)} images have no finite embedding, first "
                         f"{df['image_name'].to_numpy()[is_bad][0]}")
    distance = np.zeros(len(df))
    for rows in df.groupby("patient_id").indices.values():
        of_patient = embeddings[rows]  # (n, n_dimensions)
        for row, embedding in zip(rows, of_patient, strict=True):  # one at a time: a patient may have hundreds
            distance[row] = np.linalg.norm(of_patient - embedding, axis=1).sum() / max(len(rows) - 1, 1)
    distance, patient = pd.Series(distance, df.index), df["patient_id"]
    features = {"duckling_z": _standardize(distance, patient),
                "duckling_difference": distance - distance.groupby(patient).transform("median")}
    return pd.DataFrame(features).set_axis(pd.Index(df["image_name"]))


def _standardize(values: pd.Series, patient: pd.Series) -> pd.Series:
    """Returns (value - mean) / standard deviation within the patient, 0 where all of a patient's values are alike."""
    groups = values.groupby(patient)
    centred, sd = values - groups.transform("mean"), groups.transform("std", ddof=0)
    return (centred / sd.where(sd > 1e-9, np.inf)).rename(None)
