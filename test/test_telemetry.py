"""The library tells nobody that it is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Ends the program where it would reach out of the machine.
WATCHED = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print(event, arguments, file=sys.__stderr__, flush=True)
        import os; os._exit(9)
sys.addaudithook(watch)
"""
USES = {
    "a pipeline": "import radan_ros; radan_ros.open_model()",
    "the speed benchmark": "from radan_ros.benchmarks import speed; print(speed._machine(1))",
    "counting parameters": "from radan_ros.tools import evaluate; import openvino.tools.ovc",
}


@pytest.mark.parametrize("use", USES)
def test_nothing_is_sent_and_no_id_is_left(use: str, tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    code = f"{WATCHED}\n{USES[use]}\nimport time; time.sleep(0.3)"
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "intel").exists()
