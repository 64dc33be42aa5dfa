import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from melanoma_utils.parameters import check_parameters, read_notebook_defaults, read_parameters

DEFAULTS = {"a": {"LR": 0.1, "N_FOLDS": 10, "EXPERIMENT": "x", "FLIP": True}, "b": {"N_FOLDS": 10}}


def test_later_flags_win(tmp_path):
    for name, text in (("a.yaml", "LR: 1.0\nN_FOLDS: 3\n"), ("b.yaml", "N_FOLDS: 4\n")):
        (tmp_path / name).write_text(text)
    given = read_parameters([tmp_path / "a.yaml", tmp_path / "b.yaml"], ["LR: 2.0"], [("N_FOLDS", "5")])
    assert given == {"LR": 2.0, "N_FOLDS": "5"}


def test_a_name_that_is_no_text_is_unknown():
    with pytest.raises(ValueError, match="no notebook knows the parameter 1; known: EXPERIMENT"):
        check_parameters({1: "x"}, DEFAULTS)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="no notebook knows the parameter N_FOLD; nearest: N_FOLDS"):
        check_parameters({"N_FOLD": 3}, DEFAULTS)


@pytest.mark.parametrize(("name", "value", "converted"), [
    ("LR", "1e-4", 1e-4), ("LR", 1, 1.0), ("N_FOLDS", "5", 5), ("FLIP", "False", False), ("EXPERIMENT", 7, "7"),
    ("EXPERIMENT", "2024_11_23", "2024_11_23"), ("EXPERIMENT", "1e3", "1e3"),
])
def test_values_take_the_type_of_the_default(name, value, converted):
    checked = check_parameters({name: value}, DEFAULTS)[name]
    assert checked == converted and type(checked) is type(converted)


@pytest.mark.parametrize(("name", "value"), [("N_FOLDS", "three"), ("N_FOLDS", 2.5), ("N_FOLDS", True), ("LR", "fast"),
                                             ("FLIP", 1), ("EXPERIMENT", None)])
def test_values_of_another_type_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} {value!r} is \w+, wanted"):
        check_parameters({name: value}, DEFAULTS)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"p\.yaml is not"):
        read_parameters([tmp_path / "p.yaml"])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_parameters([tmp_path / "none.yaml"])


def test_a_parameters_cell_holds_literals_only(tmp_path):
    cell = new_code_cell("A = 1\nB = A + 1", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    with pytest.raises(ValueError):
        read_notebook_defaults(tmp_path / "n.ipynb")
