"""What to do about what the kaggle client says when it fails."""

from melanoma_utils.clients import AGAIN
from melanoma_utils.data_folder import COMPETITION

URL = f"https://www.kaggle.com/c/{COMPETITION}"
TOKEN = ("make one at https://www.kaggle.com/settings/api, give it as KAGGLE_API_TOKEN or in ~/.kaggle/access_token\n"
         "(the older kind: KAGGLE_USERNAME with KAGGLE_KEY, or ~/.kaggle/kaggle.json), then run the same command again")
DENIED = r"403 Client Error|403 - Forbidden|accept this competition|Permission '.*' was denied"
KAGGLE_ADVICE = (
    (r"401 Client Error|401 - Unauthorized", f"Kaggle refuses the token (401), it is wrong or expired: {TOKEN}"),
    # the client says this without a token, and of most tokens that Kaggle refuses
    (r"Authentication required|Could not find kaggle\.json|Missing username",
     f"Kaggle was given no token, or none that it takes (401): {TOKEN}"),
    (r"429 Client Error|Too Many Requests|HTTP 429", f"Kaggle got too many requests (429): wait a while, then {AGAIN}"),
)
COMPETITION_ADVICE = (*KAGGLE_ADVICE, (DENIED, "Kaggle refuses (403): accept the competition's rules with the token's "
                                               f"account at\n{URL}/rules, then {AGAIN}"))


def make_dataset_advice(dataset: str) -> tuple[tuple[str, str], ...]:
    """Returns the advice for the download of a dataset; Kaggle answers 403 or 404 to a name that is wrong."""
    unknown = (f"Kaggle shows the token's account no dataset {dataset!r}: OWNER/NAME is what follows\n"
               "https://www.kaggle.com/datasets/ in its address")
    return (*KAGGLE_ADVICE, (f"404 Client Error|404 - Not Found|{DENIED}", unknown))
