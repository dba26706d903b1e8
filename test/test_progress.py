"""Progress is shown on every terminal, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
from radan_ros.tools.progress import progress_bar
for _ in progress_bar(range(3), unit="face", mininterval=0):
    pass
"""


@pytest.mark.parametrize("columns", [0, 60])  # 0: the terminal does not tell
def test_a_terminal_of_any_width_shows_how_far_it_is(columns: int) -> None:
    termios = pytest.importorskip("termios", reason="terminals of Unix")
    import fcntl
    import pty
    import struct

    lead, follow = pty.openpty()
    try:
        fcntl.ioctl(follow, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
        subprocess.run([sys.executable, "-c", PROGRAM], stderr=follow, check=True, timeout=60)
        said = os.read(lead, 100_000).decode()
    finally:
        os.close(lead)
        os.close(follow)
    assert "100%" in said and "3/3" in said
    assert max(len(line.strip()) for line in said.replace("\n", "\r").split("\r")) <= (columns or 80)


def test_a_log_shows_none() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=60)
    assert done.stderr == b"" == done.stdout
