"""Ending a command line at once, with all processes that it started."""

import contextlib
import os
import signal
from collections.abc import Callable

import psutil


def stop_at_signals(message: str = "stopped", clean_up: Callable[[], None] = lambda: None) -> None:
    """Lets Ctrl-C and SIGTERM end this process and all that it started, at once, with the usual status 128 + signal.

    A KeyboardInterrupt in the midst of an event loop would end in a random traceback, and a process ended by SIGTERM
    leaves its workers behind. Nothing is lost where every file is whole or absent, whenever that happens.

    Args:
        message: written to the standard error.
        clean_up: called when the started processes are gone.
    """
    def stop(number: int, _: object) -> None:
        """Handles a signal."""
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        clean_up()
        os.write(2, f"\n{message}\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
