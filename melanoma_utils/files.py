"""Files that are whole or absent: atomic writes, checksums and a lock between runs."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old or the new content, never a part of it.

    The data go to a temporary file beside the target, are flushed to disk and renamed over it. One at a time may write
    a file: where there may be several, `lock_folder`.

    Args:
        path: target file; its folder is created.
        data: the whole content.

    Raises:
        OSError: the file can't be written (no space, no permission); the target is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary_path = path.with_name(path.name + ".tmp")
    try:
        with open(temporary_path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary_path, path)
    except OSError as error:
        temporary_path.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror} while writing {len(data):,} bytes", str(path)) from error


def check_writable(path: str | Path) -> None:
    """Raises OSError where no file can be written at path; its folder is created."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file, such as {path / 'predictions.csv'}")
    if path.parent.is_file():
        raise NotADirectoryError(f"{path.parent} is a file, no folder: nothing can be written there")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: nothing can be written there", str(path.parent)) from error


def write_json(path: str | Path, value: dict) -> None:
    """Writes a dictionary as indented JSON, whole or not at all (see `write_bytes`)."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def write_csv(path: str | Path, df: pd.DataFrame) -> None:
    """Writes a table without its index, whole or not at all (see `write_bytes`)."""
    write_bytes(path, df.to_csv(index=False, lineterminator="\n").encode())


def read_json(path: str | Path) -> dict:
    """Returns the content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON, or holds no dictionary.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__} instead of names and values")
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): delete it and run again") from error
    return value


def update_json(path: str | Path, **values: float) -> None:
    """Adds values to a JSON file, or replaces them there; such a file is timing.json."""
    with lock_folder(Path(path).parent, name=Path(path).stem):  # folds that are trained side by side share the file
        write_json(path, (read_json(path) if Path(path).is_file() else {}) | values)


def find_differences(found: dict, wanted: dict) -> str:
    """Returns where a (nested) dictionary is not as wanted, "a.b is 1, wanted 2; …", or "" where it is."""
    lines = []
    for key, value in wanted.items():
        other = found.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            lines += [f"{key}.{line}" for line in find_differences(other, value).split("; ") if line]
        elif other != value:
            lines.append(f"{key} is {other!r}, wanted {value!r}")
    return "; ".join(lines)


def hash_file(path: str | Path) -> str:
    """Returns the SHA-256 of a file's content as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_table(df: pd.DataFrame) -> str:
    """Returns the SHA-256 of a table, as it would be written to a CSV file, as 64 hexadecimal digits."""
    return hashlib.sha256(df.to_csv(index=False).encode()).hexdigest()


@contextmanager
def lock_folder(folder: str | Path, timeout: float = 30, name: str = "") -> Iterator[None]:
    """Holds a folder, or a named part of it, for one writer; the lock ends with the process, however it ends.

    Args:
        folder: the folder to hold; it is created.
        timeout: seconds to wait for another writer to go (a killed run's last process needs some).
        name: of the part; other parts, and the folder as a whole, have locks of their own.

    Raises:
        TimeoutError: another process still writes there.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(folder) / f".{name}.lock" if name else Path(folder) / ".lock")
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        what = f"{name} of {folder}" if name else folder
        raise TimeoutError(f"another run is writing to {what}: wait for it or stop it") from None
    try:
        yield
    finally:
        lock.release()
