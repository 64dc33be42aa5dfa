import shutil
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT, run_pipeline

from melanoma_utils.parameters import check_parameters, read_notebook_defaults, read_parameters
from melanoma_utils.plan import STEPS
from melanoma_utils.train_config import make_config

NOTEBOOKS = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("EDA/*.ipynb")])


def read(path):
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_house_rules(path):
    cells = read(path).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].source.startswith("# ") and cells[1].metadata.tags == ["parameters"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert read_notebook_defaults(path) and all(name.isupper() for name in read_notebook_defaults(path))
    assert not [line for cell in code for line in cell.source.splitlines() if line.startswith(("def ", "class "))]
    assert max(cell.source.count("\n") + 1 for cell in code[1:]) <= 20
    assert read(path).metadata.kernelspec.name == "python3"


def test_a_parameter_has_the_same_default_in_every_notebook():
    defaults = [read_notebook_defaults(ROOT / "notebooks" / f"{step}.ipynb") for step in STEPS]
    for name in {name for known in defaults for name in known}:
        assert len({repr(known[name]) for known in defaults if name in known}) == 1, name


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/parameters/*.yaml")), ids=lambda path: path.stem)
def test_parameter_files_hold_known_parameters(path):
    defaults = {step: read_notebook_defaults(ROOT / "notebooks" / f"{step}.ipynb") for step in STEPS}
    given = read_parameters([path])
    assert check_parameters(given, defaults) == given and given["EXPERIMENT"] == path.stem
    make_config({name: value for known in defaults.values() for name, value in known.items()} | given)


@pytest.mark.parametrize(("name", "written"), [
    ("02_create_folds", ("folds.csv", "duplicate_pairs.csv")),
    ("03_train_fold_0", ("fold_0.safetensors", "oof_fold_0.csv", "history_fold_0.csv")),
])
def test_nbval_finds_the_same_outputs_in_a_fresh_folder(finished, tmp_path, name, written):
    """The executed notebook runs again, its folder replaced by a fresh one; nbval compares all outputs, pictures too,
    but those of the cells that print times."""
    notebook = read(finished[0] / "runs" / "tiny" / f"{name}.ipynb")
    old, new = finished[0] / "output", tmp_path / "output"
    injected = next(cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", ()))
    assert str(old) in injected.source
    injected.source = injected.source.replace(str(old), str(new)) + f'\nSTORE_DIR = "{old}/stores"\n'
    nbformat.write(notebook, tmp_path / "again.ipynb")
    if name.startswith("03"):
        (new / "tiny").mkdir(parents=True)
        for file in ("folds.csv", "duplicate_pairs.csv"):
            shutil.copy(old / "tiny" / file, new / "tiny")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-cell-timeout=120", "-q", "-p", "no:cacheprovider",
               "--rootdir", tmp_path, tmp_path / "again.ipynb"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout
    for file in written:
        assert (new / "tiny" / file).read_bytes() == (old / "tiny" / file).read_bytes()


@pytest.mark.parametrize("name", ["01_explore_metadata", "02_explore_images"])
def test_eda_runs(name, data_dir, tmp_path):
    charts = ["-r", "CHARTS_DIR", tmp_path / "charts"] if "metadata" in name else []
    process = run_pipeline("--notebook", name, "--runs-dir", tmp_path / "runs", "-r", "DATA_DIR", data_dir, *charts,
                           parameters=None)
    assert process.stderr == "" and (not charts or len(list((tmp_path / "charts").glob("*.png"))) >= 6)
    outputs = [output for cell in read(tmp_path / "runs" / f"{name}.ipynb").cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 6
    assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.slow
def test_the_notebooks_work_by_hand_with_their_defaults_but_smaller(tmp_path):
    """As in Jupyter: the defaults, so the drawn competition in ../input, one fold of ten; only the folders differ."""
    flags = ["-r", "INPUT_DIR", tmp_path / "input", "-r", "OUTPUT_DIR", tmp_path / "output", "-r", "SUBMISSIONS_DIR",
             tmp_path / "submissions"]
    for step in STEPS:
        known = read_notebook_defaults(ROOT / "notebooks" / f"{step}.ipynb")
        mine = [f for i in range(0, len(flags), 3) if flags[i + 1] in known for f in flags[i:i + 3]]
        small = ["-p", "N_EPOCHS", "1"] if "N_EPOCHS" in known else []
        command = [sys.executable, "-m", "papermill", ROOT / "notebooks" / f"{step}.ipynb", tmp_path / "out.ipynb",
                   "--cwd", ROOT / "notebooks", "--no-progress-bar", *mine, *small]
        process = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
    assert (tmp_path / "submissions" / "first_try.csv").exists()
