"""Notebooks executed through papermill: one alone, or several runs in order, side by side, on Dask's workers."""

import importlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import papermill
from joblib import Parallel, delayed, parallel_config
from nbclient.exceptions import DeadKernelError
from traitlets.config import Config

from melanoma_utils.parameters import check_parameters, read_notebook_defaults
from melanoma_utils.plan import ROOT, ROOTS, Run, resolve_paths

START_SECONDS = 600  # for which a kernel may come up, on a machine that is busy with others
SOCKETS = "melanoma-{pid}-"  # how the folders in TMPDIR begin that hold a process's sockets to its kernels


def run_notebook(name: str, given: Mapping[str, object], runs_dir: str | Path = "runs") -> None:
    """Runs one notebook alone, its executed copy going to runs_dir, or to its experiment's folder there.

    Args:
        name: of the notebook, in notebooks/ or EDA/, such as "10_benchmark".
        given: parameters by name.
        runs_dir: folder of the executed notebooks.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: a parameter is unknown to it, or of another type than its default.
        PapermillExecutionError: it failed; its executed copy is in the runs folder.
    """
    paths = {path.stem: path for folder in ("notebooks", "EDA") for path in sorted((ROOT / folder).glob("*.ipynb"))}
    if name not in paths:
        raise FileNotFoundError(f"there is no notebook {name!r}; there are {', '.join(paths)}")
    defaults = read_notebook_defaults(paths[name])
    roots = {key: value for key, value in ROOTS.items() if key in defaults}
    parameters = resolve_paths(roots | check_parameters(given, {name: defaults}))
    folder = Path(runs_dir, parameters.get("EXPERIMENT", defaults.get("EXPERIMENT", "")))
    folder.mkdir(parents=True, exist_ok=True)
    _execute(paths[name], folder / f"{name}.ipynb", parameters)


def execute_runs(runs: Mapping[str, Run], runs_dir: Path, n_workers: int, dask: str) -> Iterator[str]:
    """Executes runs, side by side where that is wanted, and yields the title of each when it has ended."""
    if not dask and (n_workers == 1 or len(runs) < 2):
        for title, run in runs.items():
            print(title, flush=True)
            _execute(_find_step(run), runs_dir / f"{run.name}.ipynb", run.parameters)
            yield title
        return
    if not runs:
        return
    print("side by side: " + ", ".join(runs), flush=True)
    where = {"backend": "dask", "client": connect_dask(dask)} if dask else {"backend": "loky", "n_jobs": n_workers}
    with parallel_config(**where):
        done = Parallel(return_as="generator_unordered")(delayed(_execute_beside)(title, run, runs_dir)
                                                         for title, run in runs.items())
        try:
            for title in done:
                print(f"{title}: done", flush=True)
                yield title
        except Exception as error:
            if type(error).__name__ not in ("TerminatedWorkerError", "KilledWorker"):  # joblib's, Dask's
                raise
            raise OSError("a worker process died, most often for want of memory: fewer --workers, or a smaller "
                          "BATCH_SIZE; the same command continues") from error


def connect_dask(address: str) -> object:
    """Returns a client of a Dask scheduler; raises OSError where none answers at this address."""
    distributed = importlib.import_module("distributed")  # half a second that most calls need not wait
    try:
        return distributed.Client(address, set_as_default=False, timeout=5)
    except (OSError, ValueError) as error:
        raise OSError(f"no Dask scheduler answers at {address} ({error})") from error


def _execute_beside(title: str, run: Run, runs_dir: Path) -> str:
    """Runs a notebook beside others, its lines led by its name; returns the title."""
    _execute(_find_step(run), runs_dir / f"{run.name}.ipynb", run.parameters, prefix=f"{run.name}: ")
    return title


def _find_step(run: Run) -> Path:
    return ROOT / "notebooks" / f"{run.step}.ipynb"


class _Prefixed(io.TextIOBase):
    """Prints each line written to it behind a prefix."""

    def __init__(self, file: TextIO, prefix: str):
        self.file, self.prefix = file, prefix

    def write(self, text: str) -> int:
        """Prints the lines of a text."""
        self.file.write("".join(f"{self.prefix}{line}\n" for line in text.splitlines() if line))
        self.file.flush()
        return len(text)


def _execute(path: Path, executed_path: Path, parameters: Mapping[str, object], prefix: str = "") -> None:
    """Runs one notebook, its printed lines shown as they come."""
    out, err = (_Prefixed(file, prefix) if prefix else file for file in (sys.stdout, sys.stderr))
    with tempfile.TemporaryDirectory(prefix=SOCKETS.format(pid=os.getpid())) as sockets_dir:
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets_dir}/kernel"},  # no open port
                         "NotebookClient": {"shutdown_kernel": "immediate"}})  # a gentle end prints a KeyboardInterrupt
        try:
            papermill.execute_notebook(path, executed_path, dict(parameters), cwd=path.parent, kernel_name="python3",
                                       progress_bar=False, start_timeout=START_SECONDS, stdout_file=out,
                                       stderr_file=err, config=config)
        except DeadKernelError:
            raise
        except OSError as error:  # of writing the copy; it does not say which file
            raise OSError(error.errno, error.strerror, error.filename or str(executed_path)) from error
        except RuntimeError as error:  # jupyter_client's
            raise OSError(f"the kernel of {path.stem} did not come up ({error}): run the same command again") from error
