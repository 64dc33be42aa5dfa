"""The lesions of one person as files to take along: a page to print, a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

import pandas as pd

from melanoma_utils.competition import METADATA_COLUMNS
from melanoma_utils.evaluation_tables import format_prob, tell_missed

STYLE = """
@page { size: A4; margin: 14mm; }
body { font: 10pt/1.4 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #111; background: #fff;
       max-width: 182mm; margin: 0 auto; padding: 4mm; }
h1 { font-size: 16pt; margin: 0 0 2mm; } h2 { font-size: 12pt; margin: 6mm 0 2mm; break-after: avoid; }
.warning { border: 1.5pt solid #111; padding: 2mm 3mm; margin: 3mm 0; font-weight: 600; }
.by-hand { margin: 4mm 0; } .by-hand span { display: inline-block; border-bottom: .7pt solid #111; height: 5mm; }
table { border-collapse: collapse; width: 100%; } thead { display: table-header-group; }
tr { break-inside: avoid; } th, td { border-bottom: .5pt solid #999; padding: 1.5mm; text-align: left;
       vertical-align: middle; overflow-wrap: anywhere; } th { font-size: 8.5pt; overflow-wrap: normal; }
td.picture { width: 30mm; } td img { display: block; max-width: 28mm; max-height: 28mm; }
tr.odd td { border-bottom-width: 1.5pt; border-top: 1.5pt solid #111; } li { overflow-wrap: anywhere; }
@media print { body { padding: 0; max-width: none; } }
"""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Lesions of one person, ranked by a model</title><style>{style}</style></head><body>
<h1>Lesions of one person, ranked by a model</h1>
<p class="warning">Research software, not a medical device. A suspicious or changing lesion goes to a doctor, whatever
the number. A low number never means that a lesion is harmless.</p>
<p class="by-hand">Name <span style="width: 80mm"></span> Date of birth <span style="width: 40mm"></span></p>
<p>{facts}</p>
{lesions}{refused}{problems}
<h2>How to read this</h2><ul>{meanings}</ul>
</body></html>
"""
CSV_COLUMNS = ["image_name", "rank", "probability", "lowest", "highest", "is_suspicious", "duckling_z", "is_odd",
               *METADATA_COLUMNS, "cannot_assess", "model", "prevalence"]
COLUMNS = ("picture", "name, site", "rank", "probability of melanoma", "model says", "unlike the others")


@dataclass(frozen=True)
class ReportFacts:
    """What a report says of how it came about.

    Attributes:
        model: name of the model.
        made: when, with its time zone.
        prevalence: the share of melanomas for which the probabilities hold, between 0 and 1.
        sensitivity, specificity: shares of melanomas found and of benign lesions spared at the chosen line, measured
            out of fold.
        sex: of the person; None: unknown, or not the same for all pictures.
        age, age_to: of the person (years), on the first and the last picture; None: unknown, or as on the first.
    """

    model: str
    made: datetime
    prevalence: float
    sensitivity: float
    specificity: float
    sex: str | None = None
    age: float | None = None
    age_to: float | None = None


def make_csv(lesions_df: pd.DataFrame, facts: ReportFacts, refused: Sequence[tuple[str, str, str]] = ()) -> bytes:
    """Returns the lesions as a CSV file with the columns `CSV_COLUMNS`; what has no number is there with its reason.

    Args:
        lesions_df: as of `make_report`, with the columns `METADATA_COLUMNS` as well.
        facts, refused: see `make_report`.
    """
    refused_df = pd.DataFrame({"image_name": [name for name, *_ in refused],
                               "cannot_assess": [reason for *_, reason in refused]})
    df = lesions_df.rename_axis("image_name").reset_index().rename(columns={"objection": "cannot_assess"})
    df = pd.concat([df, refused_df]).assign(model=facts.model, prevalence=facts.prevalence)
    return df.reindex(columns=CSV_COLUMNS).to_csv(index=False).encode()


def make_report(lesions_df: pd.DataFrame, facts: ReportFacts, refused: Sequence[tuple[str, str, str]] = (),
                problems: Sequence[str] = ()) -> str:
    """Returns a page of HTML that needs nothing else and loads nothing.

    Args:
        lesions_df: of `lesion_ranking.score_lesions`, in the order to print, with the further columns
            anatom_site_general_challenge, thumbnail (data URI) and objection ("" or why the picture should not have
            been assessed).
        facts: what it says of how it came about.
        refused: name, thumbnail and reason of each picture that has no number.
        problems: sentences on files that were left out, and on what to be careful with.
    """
    rows = "".join(_write_row(row, len(lesions_df)) for row in lesions_df.itertuples())
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    lesions = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if len(lesions_df) else ""
    refused_rows = "".join(f'<tr><td class="picture">{_write_picture(name, thumbnail)}</td><td>{escape(name)}</td>'
                           f"<td>cannot assess: {escape(reason)}</td></tr>" for name, thumbnail, reason in refused)
    return PAGE.format(
        style=STYLE, facts=_write_facts(facts, len(lesions_df), len(refused)), lesions=lesions,
        refused=f"<h2>Cannot assess</h2><table><tbody>{refused_rows}</tbody></table>" if refused else "",
        problems=f"<h2>To be noted</h2><ul>{_write_items(problems)}</ul>" if problems else "",
        meanings=_write_items(_list_meanings(facts, len(lesions_df))))


def _write_row(row: tuple, n: int) -> str:
    site = "" if pd.isna(row.anatom_site_general_challenge) else f"<br>{escape(row.anatom_site_general_challenge)}"
    says = "<b>suspicious</b>" if row.is_suspicious else "below the threshold"
    says += f"<br>cannot really assess: {escape(row.objection)}" if row.objection else ""
    odd = f"{row.duckling_z:+.1f}" + ("<br><b>◆ odd one out</b>" if row.is_odd else "") if n > 1 else "–"
    spread = f"{format_prob(row.lowest)} to {format_prob(row.highest)}"
    cells = (f"{escape(row.Index)}{site}", f"{row.rank:g} of {n}", f"<b>{format_prob(row.probability)}</b><br>{spread}",
             says, odd)
    kind = ' class="odd"' if row.is_odd else ""
    return (f'<tr{kind}><td class="picture">{_write_picture(row.Index, row.thumbnail)}</td>'
            + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")


def _write_picture(name: str, thumbnail: str) -> str:
    return f'<img alt="picture of {escape(name)}" src="{escape(thumbnail)}">' if thumbnail else ""


def _write_items(sentences: Sequence[str]) -> str:
    return "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)


def _write_facts(facts: ReportFacts, n_lesions: int, n_refused: int) -> str:
    ages = "–".join(f"{age:g}" for age in dict.fromkeys((facts.age, facts.age_to)) if age is not None)
    age = f"{ages} years" if ages else "age unknown"
    sex = "sex unknown" if facts.sex is None else facts.sex
    return "<br>".join(map(escape, (
        f"Made {facts.made:%Y-%m-%d %H:%M %Z} with the model “{facts.model}”.",
        f"Person: {sex}, {age}. Pictures with a number: {n_lesions}; without: {n_refused}.",
        f"Probabilities hold where {100 * facts.prevalence:.3g} of 100 lesions like these are melanomas.")))


def _list_meanings(facts: ReportFacts, n: int) -> list[str]:
    found = 100 * facts.sensitivity
    meanings = [
        f"“Suspicious” is what lies at or above a line that found {found:.0f} of 100 melanomas and called "
        f"{100 * (1 - facts.specificity):.0f} of 100 benign lesions suspicious, out of fold. What lies below it is "
        f"not cleared: {tell_missed(facts.sensitivity)} lie there too.",
        "Under each probability stands what the most and the least worried of the model's networks say."]
    if n == 1:
        return [*meanings, "There is one picture: nothing to compare it with."]
    return [*meanings,
            "“Unlike the others” is the ugly-duckling score: how far the picture lies from the person's other lesions "
            "in what the networks see, in standard deviations of these distances. Among few pictures it can't get far: "
            "of two it is always 0. From three on the most unlike one is marked, which there always is: the mark says "
            "where to look again, not that something is wrong."]
