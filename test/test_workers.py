"""Processes that work for a program: Ctrl-C of a terminal, and a program that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def children(parent: int) -> list[int]:
    """Numbers of the processes that work for a program, without the tracker of Python's own."""
    found = [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return [number for number in found if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()]


def wait_for(what: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_that_still_import_are_silent_and_end_with_their_program(number: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "radan_ros.tools.prepare", "synthetic", tmp_path / "out", "--count", "5000"]
    program = subprocess.Popen(
        [*command, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, which a terminal's Ctrl-C goes to as a whole
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        wait_for(lambda: program.poll() is not None or len(children(program.pid)) == 2)
        workers = children(program.pid)
        assert len(workers) == 2
        if number == signal.SIGINT:
            os.killpg(program.pid, number)
        else:
            program.kill()
        out, err = program.communicate(timeout=60)  # ends when the workers have ended, too: they hold the pipes
        if number == signal.SIGINT:
            assert (program.returncode, out, err) == (130, "", "")
        wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
        assert not (tmp_path / "out" / "labels.npz").exists()
    finally:
        os.killpg(program.pid, signal.SIGKILL) if program.poll() is None else None
