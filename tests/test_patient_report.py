"""The page to print says what it must, of hostile names too, and needs nothing from anywhere."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from melanoma_utils.evaluation_tables import format_prob
from melanoma_utils.lesion_ranking import score_lesions
from melanoma_utils.patient_report import ReportFacts, make_csv, make_report
from melanoma_utils.thumbnails import encode_thumbnail

FACTS = ReportFacts("joint_224", datetime(2026, 2, 3, 14, 5, tzinfo=UTC), 0.0176, 0.951, 0.64, "female", 55)
HOSTILE = "<script>alert('x')</script>"


class Reader(HTMLParser):
    """Collects the tags with their attributes and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += " " + data


def make_lesions(names, logits=(4.0, 0.0, -6.0)):
    logits = np.stack([np.array(logits[:len(names)]), np.array(logits[:len(names)]) + 0.5], axis=1)
    df = score_lesions(names, logits, np.eye(len(names))[None] * [[1], [2], [9]][:len(names)], expit, 0.0)
    return df.assign(anatom_site_general_challenge=["torso", *[None] * (len(names) - 1)], objection="",
                     thumbnail=encode_thumbnail(np.zeros((4, 4, 3), np.uint8)))


def test_it_says_what_it_is_how_it_was_made_and_what_it_is_not():
    page = Reader(make_report(make_lesions(list("abc")), FACTS))
    text = " ".join(page.text.split())
    for words in ("not a medical device", "“joint_224”", "1.76 of 100 lesions", "2026-02-03 14:05 UTC", "female",
                  "55 years", "found 95 of 100 melanomas", "4.9 of 100 melanomas lie there too",
                  "called 36 of 100 benign lesions"):
        assert words in text
    assert page.open == [] and text.count("suspicious") >= 3 and "a torso" in text


def test_a_low_number_never_reassures():
    text = " ".join(Reader(make_report(make_lesions(list("abc")), FACTS)).text.split())
    assert "A low number never means that a lesion is harmless" in text and "below the threshold" in text
    assert "benign" not in text.replace("of 100 benign lesions suspicious", "")


def test_lesions_come_in_order_with_rank_number_and_mark():
    text = " ".join(Reader(make_report(make_lesions(list("abc")), FACTS)).text.split())
    row_a, row_c = text.index("1 of 3"), text.index("3 of 3")
    assert row_a < text.index("2 of 3") < row_c
    assert format_prob(expit(4.25)) in text and "◆ odd one out" in text[row_c:] and "◆" not in text[:row_c]


def test_it_needs_nothing_from_anywhere():
    page = Reader(make_report(make_lesions(list("abc")), FACTS, [("d", encode_thumbnail(np.zeros((4, 4, 3), np.uint8)),
                                                                 "blurred")]))
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 4 and all(source.startswith("data:image/jpeg;base64,") for source in pictures)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert any("default-src 'none'" in attributes.get("content", "") for _, attributes in page.tags)
    assert "cannot assess: blurred" in page.text


def test_hostile_names_are_text():
    page = Reader(make_report(make_lesions([HOSTILE, "b {x}"]), FACTS, [(HOSTILE, "", HOSTILE)], [HOSTILE]))
    assert "script" not in {tag for tag, _ in page.tags} and page.text.count(HOSTILE) == 4 and "b {x}" in page.text


def test_one_picture_has_nothing_to_be_compared_with():
    text = Reader(make_report(make_lesions(["a"]), FACTS)).text
    assert "nothing to compare it with" in text and "1 of 1" in text and "◆" not in text


def test_only_refused_pictures_make_a_page_too():
    page = Reader(make_report(make_lesions(["a"]).iloc[:0], FACTS, [("a", "", "blurred")]))
    assert "cannot assess: blurred" in page.text and "with a number: 0; without: 1" in page.text


def test_a_picture_that_was_assessed_against_advice_says_so():
    df = make_lesions(list("ab")).assign(objection=["", "blurred"])
    assert "cannot really assess: blurred" in " ".join(Reader(make_report(df, FACTS)).text.split())


def test_the_table_holds_every_picture_with_its_numbers_or_its_reason():
    lesions_df = make_lesions(list("abc")).assign(sex="female", age_approx=55.0, objection=["", "", "small"])
    df = pd.read_csv(io.BytesIO(make_csv(lesions_df, FACTS, [("d,\n", "", 'said "no"')]))).set_index("image_name")
    assert df.index.tolist() == ["a", "b", "c", "d,\n"] and df["rank"].tolist()[:3] == [1, 2, 3]
    assert df["probability"].tolist()[:3] == pytest.approx(lesions_df["probability"].tolist())
    assert df.loc["d,\n"].dropna().to_dict() == {"cannot_assess": 'said "no"', "model": "joint_224",
                                                 "prevalence": 0.0176}
    assert df.loc["c", "cannot_assess"] == "small" and df["is_odd"].map(str).tolist()[:3] == ["False", "False", "True"]


@pytest.mark.parametrize(("age_to", "words"), [(60, "55–60 years"), (55, "55 years"), (None, "55 years")])
def test_the_ages_on_several_pictures_are_told(age_to, words):
    page = Reader(make_report(make_lesions(list("ab")), replace(FACTS, age_to=age_to)))
    assert f"Person: female, {words}." in " ".join(page.text.split())
