"""An official client (kaggle, isic) run in sight of the user, with advice where it fails."""

import codecs
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

PACKAGES = {"kaggle": "kaggle", "isic": "isic-cli"}  # client -> the package that brings it
TAIL_CHARS = 4000
AGAIN = "run the same command again (a download continues)"
NO_NETWORK = f"look at the connection (and HTTPS_PROXY, where there is a proxy), then {AGAIN}"
Advice = Sequence[tuple[str, str]]  # (regular expression in what the client says, what to do)
FULL_DISK: Advice = ((r"No space left on device|Errno 28", f"the disk is full: make room, then {AGAIN}"),)
OFFLINE: Advice = ((r"NameResolutionError|Failed to resolve|Max retries exceeded|ProxyError|Connection(Error| error|"
                    r" refused| reset| aborted| broken)|Network is unreachable|ConnectTimeout|Read ?[Tt]imeout",
                    f"the service can't be reached: {NO_NETWORK}"),)


def find_client(name: str) -> str:
    """Returns the path of a client, looked for on PATH, then beside the running Python.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    places = (os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent))
    path = next((found for found in (shutil.which(name, path=place) for place in places) if found), None)
    if path is None:
        raise FileNotFoundError(f"there is no client {name!r} on PATH or beside {sys.executable}: `make install` puts "
                                f"it into .venv, `pip install {PACKAGES.get(name, name)}` elsewhere")
    return path


def run_client(command: Sequence[str], advice: Advice = ()) -> str:
    """Runs a client, its output passed on as it comes, and returns the last 4,000 characters of it.

    The client can't ask anything (isic offers to send reports of its crashes): whatever it asks gets no answer.

    Args:
        command: the client's name and its arguments.
        advice: what to do about failures; full disks and missing networks are known here.

    Raises:
        FileNotFoundError: there is no such client.
        ChildProcessError: it failed; tells what to do, or the client's own last lines.
    """
    path, tail = find_client(command[0]), ""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    if sys.stdout.isatty():  # behind a pipe rich draws no progress unless it is told to
        environment |= {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "COLUMNS": str(shutil.get_terminal_size()[0])}
    print("$", shlex.join(command), flush=True)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with subprocess.Popen([path, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=environment) as process:
        try:
            while block := process.stdout.read1(2**16):
                text = decoder.decode(block)
                sys.stdout.write(text)
                sys.stdout.flush()
                tail = (tail + text)[-TAIL_CHARS:]
        except BaseException:
            process.terminate()  # Ctrl-C, or nobody reads on: a client never goes on alone
            process.wait()
            raise
    if process.returncode:
        raise ChildProcessError(_explain(command[0], process.returncode, tail, (*FULL_DISK, *advice, *OFFLINE)))
    return tail


def _explain(name: str, status: int, tail: str, advice: Advice) -> str:
    for pattern, text in advice:
        if re.search(pattern, tail):
            return text
    lines = [line for line in tail.splitlines() if line.strip()][-2:] or ["it said nothing"]
    return "\n  ".join([f"the client {name} ended with status {status}:", *lines])


def check_reachable(url: str) -> None:
    """Checks that a service answers at all, for a client that would try in silence for half an hour.

    Raises:
        ConnectionError: it can't be reached; any answer, an error too, is one.
    """
    try:
        urllib.request.urlopen(url, timeout=30).close()
    except urllib.error.HTTPError:
        return
    except OSError as error:  # URLError and time-outs
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # the clients bring certificates of their own
            raise ConnectionError(f"{url} can't be reached ({reason}): {NO_NETWORK}") from error


def report_errors(action: Callable[[], None]) -> int:
    """Runs a command line's action; returns the exit status, an error being one line on stderr and no traceback."""
    try:
        action()
    except KeyboardInterrupt:
        print("\nstopped; the same command continues here", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
