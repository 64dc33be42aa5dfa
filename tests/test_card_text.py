import re
import string

from melanoma_utils.card_text import CARD, DRAWN, HALF, REAL

PARTS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}
TRIPOD_AI = [f"{number}{part}" for number in range(1, 28) for part in PARTS.get(number, [""])]  # of the published list


def list_items(cell):
    """Returns the items that a cell such as "12a–12c, 13 …" names."""
    items = []
    for first, last in re.findall(r"(\d+[a-g]?)(?:–(\d+[a-g]?))?", cell):
        items += TRIPOD_AI[TRIPOD_AI.index(first):TRIPOD_AI.index(last or first) + 1]
    return items


def test_each_item_of_tripod_ai_is_placed_once():
    table = CARD.partition("## Where the items of TRIPOD+AI are")[2]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")][2:]
    assert sorted(item for cell in cells for item in list_items(cell)) == sorted(TRIPOD_AI)


def test_the_headings_are_those_of_the_model_card_paper():
    assert re.findall(r"^## (.+)", CARD, re.M)[:-1] == [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations"]


def test_real_and_drawn_data_fill_the_same_places():
    places = {name for _, name, _, _ in string.Formatter().parse(CARD) if name}
    assert set(REAL) == set(DRAWN) and set(REAL) <= places
    assert "NOT SKIN" in DRAWN["title_end"] and "DRAWN" in DRAWN["loud"] and not REAL["banner"]
    assert not set("{}") & set(HALF + "".join([*REAL.values(), *DRAWN.values()]))
