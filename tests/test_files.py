import errno
import os
import subprocess
import sys

import pytest

from melanoma_utils import files
from melanoma_utils.files import lock_folder, read_json, update_json, write_bytes, write_json


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def refuse(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(OSError, match=r"No space left on device while writing \d+ bytes: .*a\.json"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_kill_before_the_renaming_leaves_the_old_file(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(source, target):
        raise Killed

    write_bytes(tmp_path / "a", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", kill)
        with pytest.raises(Killed):
            write_bytes(tmp_path / "a", b"new and longer")
    assert (tmp_path / "a").read_bytes() == b"old"
    write_bytes(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"new"


def test_update_keeps_what_is_there(tmp_path):
    update_json(tmp_path / "t.json", a=1, b=2)
    update_json(tmp_path / "t.json", b=3)
    assert read_json(tmp_path / "t.json") == {"a": 1, "b": 3}


def test_damaged_json_says_what_to_do(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON .*: delete it"):
        read_json(tmp_path / "a.json")


def test_json_that_is_no_dictionary_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON \(a list instead of names and values\)"):
        read_json(tmp_path / "a.json")


def test_a_second_writer_is_refused_until_the_first_process_is_gone(tmp_path):
    code = ("from melanoma_utils.files import lock_folder\n"
            f"with lock_folder({str(tmp_path)!r}):\n print(1, flush=True)\n input()")
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(TimeoutError, match="another run is writing"), lock_folder(tmp_path, timeout=0):
        pass
    holder.kill()
    holder.wait()
    with lock_folder(tmp_path, timeout=5):
        pass
