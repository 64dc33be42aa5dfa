"""Parameters of the notebooks: reading them from files and flags, checking them against the notebooks' defaults."""

import argparse
import ast
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
import yaml


def add_parameter_flags(parser: argparse.ArgumentParser) -> None:
    """Adds papermill's flags for parameters, as `read_parameters` takes them."""
    parser.add_argument("-f", "--parameters_file", action="append", default=[], metavar="FILE", help="YAML parameters")
    parser.add_argument("-p", "--parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("-r", "--parameters_raw", nargs=2, action="append", default=[], metavar=("NAME", "TEXT"))
    parser.add_argument("-y", "--parameters_yaml", action="append", default=[], metavar="YAML")


def read_parameters(files: Iterable[str | Path] = (), yamls: Iterable[str] = (),
                    pairs: Iterable[tuple[str, str]] = ()) -> dict:
    """Returns parameters by name out of papermill's flags; what comes later wins.

    Args:
        files: YAML files (-f).
        yamls: YAML texts (-y).
        pairs: names with values as typed (-p, -r); `check_parameters` gives them the type of their default.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file or text is not a YAML mapping, or a file not in UTF-8.
    """
    given = {}
    for path in files:
        if not Path(path).is_file():
            raise FileNotFoundError(f"the parameter file {path} does not exist")
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not in UTF-8 ({error}): save it so") from error
        given |= _parse_yaml(text, str(path))
    for text in yamls:
        given |= _parse_yaml(text, "-y")
    return given | dict(pairs)


def _parse_yaml(text: str, where: str) -> dict:
    try:
        value = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not YAML: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a mapping 'NAME: value', met {value!r}")
    return value


def read_notebook_defaults(path: str | Path) -> dict:
    """Returns the parameters of a notebook with their defaults, from its cell tagged `parameters`.

    Raises:
        ValueError: there is no such cell, or it holds something else than NAME = literal.
    """
    cells = [cell for cell in nbformat.read(path, as_version=4).cells
             if "parameters" in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise ValueError(f"{path} has {len(cells)} cells tagged 'parameters', wanted 1")
    defaults = {}
    for node in ast.parse(cells[0].source).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            raise ValueError(f"{path}: line {node.lineno} of the parameters cell is not NAME = literal")
        defaults[node.targets[0].id] = ast.literal_eval(node.value)
    return defaults


def check_parameters(given: Mapping[str, object], defaults: Mapping[str, Mapping[str, object]]) -> dict:
    """Returns the given parameters, converted to the type of their default where that is possible.

    Args:
        given: parameters by name.
        defaults: of each notebook, by its name.

    Raises:
        ValueError: a name is in no notebook (suggests the nearest ones), or a value has another type than its default.
    """
    known = {name: value for of_notebook in defaults.values() for name, value in of_notebook.items()}
    checked = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(str(name).upper(), known, n=3)
            raise ValueError(f"no notebook knows the parameter {name}; "
                             + (f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(known))}"))
        checked[name] = _convert(name, value, known[name])
    return checked


def _convert(name: str, given: object, default: object) -> object:
    wanted, value = type(default), given
    if isinstance(given, str) and wanted is not str:
        try:
            value = ast.literal_eval(given)  # typed on the command line; and 1e-4 is text to YAML
        except (ValueError, SyntaxError):
            value = given
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is str and type(value) in (int, float):
        return str(value)  # EXPERIMENT: 7 in a file
    if type(value) is wanted:
        return value
    raise ValueError(f"{name} {value!r} is {type(value).__name__}, wanted {wanted.__name__} such as {default!r}")
