"""How the programs start, and what `import radan_ros` costs."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import radan_ros
from radan_ros import programs

START = "import sys; from radan_ros.programs import {name}; sys.exit({name}())"
# The interpreter's own start, before the first line of the program, is interrupted in its own way.
OURS = "radan_ros"


def start(code: str, *arguments: str, ignored: bool = False) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ignored else None
    try:
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        if ignored:
            signal.signal(signal.SIGINT, before)


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = subprocess.check_output(
        [sys.executable, "-c", "import sys; import radan_ros; print(*sys.modules)"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        text=True,
    ).split()
    assert "radan_ros" in loaded
    assert {"numpy", "cv2", "numba", "openvino", "torch", "dlib"} & set(loaded) == set()


def test_each_stable_name_is_that_of_its_module() -> None:
    assert sorted(radan_ros._MODULES) == sorted(radan_ros.__all__)
    for name in radan_ros.__all__:
        value = getattr(radan_ros, name)
        assert value.__name__ == name and value.__module__.startswith("radan_ros.")
    assert set(radan_ros.__all__) <= set(dir(radan_ros))
    with pytest.raises(AttributeError, match="'radan_ros' has no attribute 'nothing'"):
        radan_ros.nothing  # noqa: B018
    with pytest.raises(ImportError, match="nothing"):
        from radan_ros import nothing  # noqa: F401


def test_every_program_of_pip_is_there() -> None:
    for value in vars(programs).values():
        if isinstance(value, partial):
            assert callable(importlib.import_module(value.args[0]).main)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_program_starts_ends_it_without_a_traceback(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    statuses = []
    for delay in (0.1, 0.15, 0.2, 0.3, 0.5):
        # It looks for pictures for ever in a pipe that nothing comes through.
        pipe = tmp_path / f"{delay}.png"
        os.mkfifo(pipe)
        process = start(START.format(name="reconstruct"), "-f", str(pipe), "--out", str(tmp_path / "out"))
        try:
            time.sleep(delay)
            process.send_signal(number)
            said = process.communicate(timeout=20)[1]
        finally:
            process.kill()
        assert not ("Traceback" in said and OURS in said), said
        statuses.append(process.returncode)
    assert set(statuses) <= {status, -number} and status in statuses


def test_a_keyboard_interrupt_that_a_program_leaves_to_others_is_no_traceback() -> None:
    code = (
        "import sys, types, signal; m = types.ModuleType('m'); m.main = lambda: signal.raise_signal(signal.SIGINT);"
        "sys.modules['m'] = m; from radan_ros.programs import run; sys.exit(run('m', node={node}))"
    )
    for node, status in ((False, 130), (True, 0)):
        process = start(code.format(node=node))
        said = process.communicate(timeout=20)[1]
        assert (process.returncode, said) == (status, "")


@pytest.mark.parametrize(("node", "status"), [(False, 0), (True, 7)])
def test_in_the_background_of_a_script_only_nodes_hear_its_ctrl_c(node: bool, status: int) -> None:
    code = (
        "import sys, types, signal; m = types.ModuleType('m')\n"
        "def main():\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt: return 7\n"
        "    return 0\n"
        f"m.main = main; sys.modules['m'] = m; from radan_ros.programs import run; sys.exit(run('m', node={node}))"
    )
    process = start(code, ignored=True)
    assert process.communicate(timeout=20)[1] == ""
    assert process.returncode == status
