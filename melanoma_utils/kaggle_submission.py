"""A submission, checked and sent with the kaggle client."""

from pathlib import Path

import pandas as pd

from melanoma_utils.clients import run_client
from melanoma_utils.competition import SUBMISSION_COLUMNS
from melanoma_utils.data_folder import COMPETITION
from melanoma_utils.kaggle_advice import COMPETITION_ADVICE, URL
from melanoma_utils.submission import check_submission

N_TEST_IMAGES = 10_982


def submit(path: str | Path, message: str) -> None:
    """Sends a submission to the competition, once it is known to be one.

    Args:
        path: the CSV file.
        message: what Kaggle's list of submissions shows beside it.

    Raises:
        FileNotFoundError: there is no such file, or no kaggle client.
        ValueError: it is made of the drawn competition, or is no valid submission.
        ChildProcessError: the client failed; tells what to do.
    """
    _check_submission_file(Path(path))
    said = run_client(["kaggle", "competitions", "submit", "-c", COMPETITION, "-f", str(path), "-m", message],
                      COMPETITION_ADVICE)
    if "Could not" in said:  # the client ends with status 0 all the same
        raise ChildProcessError("Kaggle did not take the submission, see above: run the same command again")
    print(f"its score appears at {URL}/submissions")


def _check_submission_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `make submission` writes submissions/EXPERIMENT.csv")
    try:
        df = pd.read_csv(path)
        if tuple(df) != SUBMISSION_COLUMNS:
            raise ValueError(f"the columns are {list(df)}, wanted {list(SUBMISSION_COLUMNS)}")
        if df["image_name"].astype(str).str.startswith("SYN_").any():
            raise ValueError("it is made of the drawn, synthetic competition, of which Kaggle knows nothing")
        check_submission(df, df)
        if len(df) != N_TEST_IMAGES:
            raise ValueError(f"it has {len(df):,} rows, Kaggle wants {N_TEST_IMAGES:,}")
    except ValueError as error:
        raise ValueError(f"{path} is not sent: {error}") from error
