"""How the programs start, and what `import radan_ros` costs."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import radan_ros
from radan_ros import programs
from radan_ros.tools.signals import Signals

# A program that tells where it is and stays there: while it is loaded, or when it runs.
PROGRAM = """
import sys, time
def stay(where):
    if where == sys.argv[1]:
        print("here", flush=True)
        time.sleep(30)
stay("loading")
def main():
    stay("running")
    return 0
def other():
    return "7"
"""


def environment_of(folder: Path | None = None) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder or ""), *sys.path]))}


def start(code: str, *arguments: str, folder: Path | None = None, ignored: bool = False) -> subprocess.Popen[str]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ignored else None
    try:
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environment_of(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        if ignored:
            signal.signal(signal.SIGINT, before)


def run_of(module: str, *more: str) -> str:
    return f"import sys; from radan_ros.programs import run; sys.exit(run({', '.join([repr(module), *more])}))"


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = subprocess.check_output(
        [sys.executable, "-c", "import sys; import radan_ros; print(*sys.modules)"],
        env=environment_of(),
        text=True,
    ).split()
    assert "radan_ros" in loaded
    assert {"numpy", "cv2", "numba", "openvino", "torch", "dlib", "typing"} & set(loaded) == set()


def test_each_stable_name_is_that_of_its_module() -> None:
    listed = subprocess.check_output(
        [sys.executable, "-c", "import radan_ros; print(*dir(radan_ros))"], env=environment_of(), text=True
    )
    assert set(radan_ros.__all__) <= set(listed.split())
    assert sorted(radan_ros._MODULES) == sorted(radan_ros.__all__)
    for name in radan_ros.__all__:
        value = getattr(radan_ros, name)
        assert value.__name__ == name and value.__module__.startswith("radan_ros.")
        assert vars(radan_ros)[name] is value, "asked for once"
    assert radan_ros.drawing is importlib.import_module("radan_ros.drawing")
    with pytest.raises(AttributeError, match="'radan_ros' has no attribute 'nothing'"):
        radan_ros.nothing  # noqa: B018
    with pytest.raises(ImportError, match="nothing"):
        from radan_ros import nothing  # noqa: F401


def test_every_program_of_pip_is_there() -> None:
    for value in vars(programs).values():
        if isinstance(value, partial):
            assert callable(importlib.import_module(value.args[0]).main)


@pytest.mark.parametrize("where", ["loading", "running"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("node", [False, True])
def test_a_signal_ends_a_program_without_a_traceback(
    where: str, number: signal.Signals, node: bool, tmp_path: Path
) -> None:
    (tmp_path / "slow_program.py").write_text(PROGRAM)
    process = start(run_of("slow_program", f"node={node}"), where, folder=tmp_path)
    try:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        process.send_signal(number)
        said = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    status = 0 if node else 128 + number
    if (where, number, node) == ("running", signal.SIGTERM, False):
        status = -number  # a program of files says itself what it does about that
    assert (process.returncode, said) == (status, "")


def test_a_program_runs_with_its_status_and_on_one_thread_of_blas(tmp_path: Path) -> None:
    (tmp_path / "slow_program.py").write_text(PROGRAM)
    (tmp_path / "blas.py").write_text("import os, sys\ndef main(): return int(os.environ['OPENBLAS_NUM_THREADS']) + 4")
    for code, status in ((run_of("slow_program", "'other'"), 7), (run_of("blas"), 5)):
        process = start(code, "nowhere", folder=tmp_path)
        assert process.communicate(timeout=30) == ("", "") and process.returncode == status


def test_programs_start_where_ros_is_there_but_no_workspace_is_sourced(tmp_path: Path) -> None:
    pytest.importorskip("ament_index_python")
    (tmp_path / "slow_program.py").write_text(PROGRAM)
    environment = {name: value for name, value in environment_of(tmp_path).items() if name != "AMENT_PREFIX_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", run_of("slow_program"), "nowhere"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("node", "status"), [(False, 5), (True, 6)])
def test_in_the_background_of_a_script_only_nodes_hear_its_ctrl_c(node: bool, status: int, tmp_path: Path) -> None:
    (tmp_path / "ears.py").write_text(
        "import signal\ndef main(): return 5 + (signal.getsignal(signal.SIGINT) is not signal.SIG_IGN)"
    )
    process = start(run_of("ears", f"node={node}"), folder=tmp_path, ignored=True)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == status


def test_a_signal_after_the_program_is_none_that_python_could_die_of(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import atexit, signal\n"
        "def main():\n"
        "    atexit.register(lambda: [signal.raise_signal(n) for n in (signal.SIGINT, signal.SIGTERM)])\n"
        "    return 3\n"
    )
    for node in (False, True):
        process = start(run_of("late", f"node={node}"), folder=tmp_path)
        assert process.communicate(timeout=30) == ("", "") and process.returncode == 3


@pytest.fixture
def handlers() -> Iterator[None]:
    """Leaves the handlers of this process as they were: whoever is started next inherits what is ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_swallowed_signal_is_raised_again_by_the_next_check() -> None:
    with Signals() as signals:
        signals.check()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(KeyboardInterrupt):  # as a library's callback does
                signal.raise_signal(number)
            with pytest.raises(KeyboardInterrupt):
                signals.check()
            assert signals.status == 128 + number
            signal.raise_signal(signal.SIGINT)  # one more does not disturb the ending
            assert signals.status == 128 + number
            signals.listen()
            signals.check()
