"""README and docs: every command in them runs, or is at least one that exists; what they name exists, too.

The word behind a block's language says what is done with it: `run` it, or `parse` it where it needs hardware, minutes,
a network or an installed ROS.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
import yaml
from conftest import ASTRONAUT_BOX, SHARED

import radan_ros
from radan_ros import programs
from radan_ros.tools.sources import Astronaut

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
# What a page may call that is not ours; of ROS's commands those of other packages.
FOREIGN = {"git", "cd", "pip", "rosdep", "colcon", "source", "touch", "export", "python3"}
FOREIGN_ROS = {"pkg", "topic", "param", "lifecycle", "bag"}
# Inline code that begins so is a command, or the beginning of one.
PROGRAM = re.compile(
    r"(?:[A-Z_]+=\w+ )?(?:(?:make|scripts/env|torchrun|ros2|pip|\.venv/bin/python) |radan-\w|benchmark/\w)"
)
FOLDERS = ("benchmark", "config", "docs", "launch", "msg", "srv", "radan_ros", "requirements", "scripts", "test")
# Parts of blocks, and what of ../shared they need.
NEEDED = {" datasets/": "datasets", "benchmark/smoothing.py": "video"}
CONFIGURATION = yaml.safe_load((ROOT / "config" / "radan.yaml").read_text())["/**"]["ros__parameters"]


def read(*path: str) -> str:
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------- what the pages hold


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    how: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    text = read(page)
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2].strip(), match[3])
        for match in re.finditer(r"^```(\w*)(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    ]


BLOCKS = [block for page in NAMES for block in blocks_of(page)]


def prose_of(page: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^```(?:.*\n)*?```$", "", read(page), flags=re.MULTILINE)


def code_in(text: str) -> list[str]:
    """The inline code of a text."""
    return re.findall(r"`([^`\n]+)`", text)


def tables_of(text: str) -> list[list[list[str]]]:
    """Tables of a text: rows of cells, the heading left out."""
    found = re.findall(r"^\|.*\|\n\|[ \-|]+\|\n((?:\|.*\|\n)+)", text + "\n", re.MULTILINE)
    return [[[cell.strip() for cell in row.strip("|").split(" |")] for row in rows.splitlines()] for rows in found]


def section(text: str, heading: str) -> str:
    """What stands under a heading."""
    level, _, _ = heading.partition(" ")
    parts = re.split(rf"^{re.escape(heading)}$", text, flags=re.MULTILINE)
    assert len(parts) == 2, f"{heading} stands {len(parts) - 1} times"
    return re.split(rf"^#{{1,{len(level)}}} ", parts[1], flags=re.MULTILINE)[0]


def first_column(page: str, heading: str) -> dict[str, list[str]]:
    """The inline code of the first cells of a section's only table, and the rows."""
    (table,) = tables_of(section(read(page), heading))
    return {name: row for row in table for name in code_in(row[0])}


# ---------------------------------------------------------------------------------------------------- our programs


def scripts() -> dict[str, tuple[str, str]]:
    """Programs that `pip install .` makes: module and function."""
    found = re.findall(r'"(radan-[\w-]+)=radan_ros.programs:(\w+)"', read("setup.py"))
    return {name: (getattr(programs, program).args[0], "main") for name, program in found}


def test_nodes_are_told_to_the_build_as_nodes() -> None:
    nodes = re.search(
        r'set\(node False\)\n  if\(name MATCHES "\^\((\S+)\)\$"\)\n    set\(node True\)', read("CMakeLists.txt")
    )
    assert nodes is not None and nodes[1].split("|") == ["radan_node", "radan_lifecycle_node", "play", "record"]


def executables() -> dict[str, tuple[str, str]]:
    """Programs that `ros2 run radan_ros` knows: module and function."""
    return {
        name: (module, function)
        for name, module, function in re.findall(
            r"^    (\w+)=(radan_ros[\w.]+)=(\w+)", read("CMakeLists.txt"), re.MULTILINE
        )
    }


class Captured(Exception):
    """Thrown in place of parsing: brings the parser."""


def _capture(self: argparse.ArgumentParser, *_: Any, **__: Any) -> Any:
    raise Captured(self)


@functools.cache
def parser_of(program: str) -> argparse.ArgumentParser | None:
    """The parser of a module (radan_ros.tools.play) or of a file (benchmark/node.py); None without what it needs."""
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", _capture),
        mock.patch.object(sys, "argv", [program]),
        mock.patch.object(sys, "path", [*sys.path]),  # which some files add to
    ):
        try:
            if program.endswith(".py"):
                runpy.run_path(str(ROOT / program), run_name="__main__")
            else:
                module = importlib.import_module(program)
                if hasattr(module, "_parser"):
                    return module._parser()
                module.main([])
        except Captured as captured:
            return captured.args[0]
        except ModuleNotFoundError as error:
            if not str(error.name).startswith(("radan_ros.tools", "radan_ros.benchmarks")):
                return None
            raise
    raise AssertionError(f"{program} reads no arguments")


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """All options of a parser and of its subcommands."""
    options: set[str] = set()
    for action in parser._actions:
        options |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            options |= {option for sub in action.choices.values() for option in options_of(sub)}
    return options


def launch_arguments(file: str) -> set[str]:
    """Names that a launch file declares, with those of the one that it includes."""
    calls = [node for node in ast.walk(ast.parse(read("launch", file))) if isinstance(node, ast.Call)]
    names = {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "argument" and isinstance(call.args[0], ast.Constant)
    }
    assert names, file
    return names | (set(CONFIGURATION) if file == "radan.launch.py" else launch_arguments("radan.launch.py"))


def check(words: list[str], whole: bool) -> bool:
    """Check a command: its program exists and takes these arguments. False where it is not ours.

    Without `whole` it may be part of one: only the options are looked at.
    """
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]  # variables before the command
    program, arguments = words[0], words[1:]
    if program == "make":
        targets = re.search(r"^\.PHONY: (.*)", read("Makefile"), re.MULTILINE)
        assert targets is not None
        variables = set(re.findall(r"^(\w+) *=", read("Makefile"), re.MULTILINE))
        for word in arguments:
            name, equals, _ = word.partition("=")
            assert name in (variables if equals else targets[1].split()), f"make knows no {name}"
    elif program == "pip":
        for extra in (e for word in arguments for e in re.findall(r"^\.\[(\w+)\]$", word)):
            assert re.search(rf'^ +"{extra}": ', read("setup.py"), re.MULTILINE), f"setup.py has no extra {extra}"
    elif program == "scripts/env":
        check([word for word in arguments if word not in ("--private", "--underlay")], whole)
    elif program == "torchrun":
        check(["python", *arguments[arguments.index("-m") :]], whole)
    elif program == "ros2" and arguments[0] == "launch":
        package, file, *rest = arguments[1:]
        assert package == "radan_ros"
        declared = launch_arguments(file)
        for word in rest:
            assert word == "--show-args" or word.partition(":=")[0] in declared, f"{file} has no argument {word}"
    elif program == "ros2" and arguments[0] == "run":
        assert arguments[1] == "radan_ros"
        check_arguments(executables()[arguments[2]][0], arguments[3:], whole)
    elif program.startswith("install/jazzy/lib/radan_ros/"):
        check_arguments(executables()[Path(program).name][0], arguments, whole)
    elif program.startswith("radan-"):
        assert program in scripts(), f"setup.py makes no {program}"
        check_arguments(scripts()[program][0], arguments, whole)
    elif program.endswith("python") and arguments[0] == "-m":
        check_arguments(arguments[1], arguments[2:], whole)
    elif program == "python":
        check_arguments(arguments[0], arguments[1:], whole)
    elif program.startswith("benchmark/"):
        check_arguments(program, arguments, whole)
    else:
        return program in FOREIGN or (program == "ros2" and arguments[0] in FOREIGN_ROS)
    return True


def check_arguments(program: str, arguments: list[str], whole: bool) -> None:
    if "--ros-args" in arguments:
        arguments = arguments[: arguments.index("--ros-args")]
    if program == "radan_ros.ros.node":
        assert not arguments, "the node has ROS's arguments alone"
        return
    parser = parser_of(program)
    if parser is None:
        return
    known = options_of(parser)
    for word in arguments:
        assert not re.match(r"--?[a-z]", word) or word in known, f"{program} has no option {word}"
    if whole:
        options = parser.parse_args(arguments)  # ends the test with argparse's words where they are wrong
        if program == "radan_ros.tools.train" and importlib.util.find_spec("torch"):
            from radan_ros.training.config import read_config

            read_config(ROOT / options.config, options.set)
        elif program == "radan_ros.tools.process_bag":
            assert {pair.partition("=")[0] for pair in options.set} <= set(CONFIGURATION)


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a shell block, in words."""
    found = []
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        while "&&" in words:
            found.append(words[: words.index("&&")])
            words = words[words.index("&&") + 1 :]
        found.append(words)
    return [words for words in found if words]


# ------------------------------------------------------------------------------------------------------ the blocks


def test_every_block_is_run_or_parsed() -> None:
    allowed = {"bash": {"run", "parse"}, "python": {"run"}, "text": {""}}
    wrong = [
        f"{block}: {block.language} {block.how}" for block in BLOCKS if block.how not in allowed.get(block.language, ())
    ]
    assert not wrong
    assert sum(block.how == "run" for block in BLOCKS) > 10, "the pages are read"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "bash"], ids=str)
def test_programs_of_a_block_exist_and_take_its_arguments(block: Block) -> None:
    for words in commands_of(block):
        assert check(words, whole=True), f"{words[0]}: no program of ours, and not in FOREIGN"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray, builtin: radan_ros.Model) -> Path:
    """What the pages' commands find in their folder, and in `bin` our programs as an installation has them."""
    folder = tmp_path_factory.mktemp("material")
    for name in ("picture.jpg", "pictures/a.jpg", "pictures/b.png", "mine/images/a.jpg", "marked/a.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), astronaut if name != "pictures/b.png" else astronaut[:300, 80:380])
    points = radan_ros.Pipeline(builtin)(astronaut, [ASTRONAUT_BOX])[0].landmarks[:, :2] + 1  # as iBUG counts pixels
    rows = "\n".join(f"{x:.2f} {y:.2f}" for x, y in points)
    (folder / "marked" / "a.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    clip = Astronaut()
    video = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), clip.fps, clip.size[::-1])
    for index in range(10):
        video.write(clip.frame(index))
    video.release()
    for name in ("bag", "bags/monday", "bags/tuesday"):
        write_bag(folder / name, [clip.frame(index) for index in range(5)])
    if (SHARED / "datasets").is_dir():
        (folder / "datasets").symlink_to(SHARED / "datasets")
    (folder / "benchmark").symlink_to(ROOT / "benchmark")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (folder / "bin" / "python").chmod(0o755)
    for name, (module, function) in scripts().items():
        program = folder / "bin" / name
        start = f"import sys; from {module} import {function}; sys.exit({function}())"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{start}" "$@"\n')
        program.chmod(0o755)
    return folder


def write_bag(folder: Path, frames: list[np.ndarray]) -> None:
    """A rosbag2 of a camera."""
    rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="the bag is made with rosbags")
    from rosbags.typesys import Stores, get_typestore

    store, kind = get_typestore(Stores.ROS2_JAZZY), "sensor_msgs/msg/Image"
    with rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/camera/image_raw", kind, typestore=store)
        for index, frame in enumerate(frames):
            ns = 1_700_000_000_000_000_000 + index * 33_333_333
            header = store.types["std_msgs/msg/Header"](
                store.types["builtin_interfaces/msg/Time"](*divmod(ns, 10**9)), "camera_optical_frame"
            )
            height, width = frame.shape[:2]
            image = store.types[kind](header, height, width, "bgr8", 0, 3 * width, frame.reshape(-1))
            writer.write(connection, ns, store.serialize_cdr(image, kind))


def work_folder(material: Path, folder: Path) -> Path:
    """A copy of the material."""
    shutil.copytree(material, folder, symlinks=True, ignore=shutil.ignore_patterns("bin"), dirs_exist_ok=True)
    return folder


def shell(text: str, folder: Path, material: Path) -> str:
    """Run commands as a user would; returns what they said, and fails with it."""
    places = [str(Path(radan_ros.__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {
        "PATH": f"{material / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in places if place),
        "CUDA_VISIBLE_DEVICES": "",
    }
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, f"{text}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.mark.parametrize("block", [b for b in BLOCKS if (b.language, b.how) == ("bash", "run")], ids=str)
def test_a_block_runs(block: Block, material: Path, tmp_path: Path) -> None:
    if "radan-process-bag" in block.text:
        pytest.importorskip("radan_ros.msg", reason="needs ROS and the built package: make test")
    if any(part in block.text and not (SHARED / name).is_dir() for part, name in NEEDED.items()):
        pytest.skip("the reference data of ../shared is not here")
    folder = work_folder(material, tmp_path)
    before = set(folder.rglob("*"))
    said = shell(block.text, folder, material)
    if block.text.startswith("python benchmark/"):  # which print
        assert said.count("\n") > 5
        return
    written = [path for path in set(folder.rglob("*")) - before if path.is_file()]
    assert written and all(path.stat().st_size for path in written)


@pytest.mark.parametrize("page", [page for page in NAMES if any(b.language == "python" for b in blocks_of(page))])
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: str, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work_folder(material, tmp_path))
    left: dict[str, Any] = {}
    for block in blocks_of(page):
        if block.language == "python":
            exec(compile("\n" * block.line + block.text, page, "exec"), left)
    assert len(left["faces"]) == 1 and left["vertices"].shape[2] == 3
    if page != "docs/library.md":
        return
    assert np.nanmin(left["depth"]) == pytest.approx(left["meshes"][0, :, 2].min(), rel=0.01), (
        "metres, of the same head"
    )
    assert left["pncc"].any() and (tmp_path / "face.ply").stat().st_size > 100_000
    assert left["index"] == 10, "all frames of the clip"
    near = np.abs(left["fitted"][0, :, :2] - left["vertices"][0, :, :2]).mean()
    assert near < 5, "fitted to its landmarks the face is about the same, in pixels"


def test_the_files_of_a_picture_are_those_of_the_table(material: Path, tmp_path: Path) -> None:
    table = tables_of(section(read("docs/offline.md"), "## Pictures"))[0]
    named = {name: "asked" in row[1] for row in table for name in code_in(row[0])}
    switches = sorted({switch for row in table for switch in code_in(row[1])})
    assert len(named) > 12
    folder = work_folder(material, tmp_path)
    shell(f"radan-reconstruct -f pictures/a.jpg --out all {shlex.join(switches)}", folder, material)
    assert {path.name for path in (folder / "all").iterdir()} == {*named, "a_0.mtl"}
    shell("radan-reconstruct -f pictures/a.jpg --out some", folder, material)
    assert {path.name for path in (folder / "some").iterdir()} == {name for name, asked in named.items() if not asked}


def test_columns_of_a_video_are_those_of_the_table() -> None:
    from radan_ros.tables import columns

    listed: list[str] = []
    for row in tables_of(section(read("docs/offline.md"), "## Videos"))[0]:
        for first, last in re.findall(r"`(\w+)`(?: to `(\w+)`)?", row[0]):
            if last:
                before, after = re.split(r"\d+", first)
                end = int(re.findall(r"\d+", last)[0])
                listed += [f"{before}{i}{after}" for i in range(end + 1)]
            else:
                listed.append(first)
    assert listed == list(columns(50))


# ------------------------------------------------------------------------------------- what the pages name exists


@pytest.mark.parametrize("page", NAMES)
def test_inline_code_ends_on_its_line(page: str) -> None:  # else what is between two of them would be read as code
    assert [line for line in prose_of(page).splitlines() if line.count("`") % 2] == []


@pytest.mark.parametrize("page", NAMES)
def test_links_and_pictures_of_a_page_are_there(page: str) -> None:
    text = prose_of(page)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```(?:.*\n)*?```$", "", page.read_text(), flags=re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_leads_to_every_page_and_every_picture_is_shown() -> None:
    linked = set(re.findall(r"\]\((docs/[\w.]+\.md)", read("README.md")))
    assert linked == set(NAMES[1:])
    shown = {
        ((ROOT / page).parent / target).resolve()
        for page in NAMES
        for target in re.findall(r"\]\(([^)\s]+\.(?:jpg|png))\)", read(page))
    }
    assert shown == set((ROOT / "docs" / "images").iterdir())


@pytest.mark.parametrize("page", NAMES)
def test_commands_in_the_text_exist_and_have_those_options(page: str) -> None:
    for code in code_in(prose_of(page)):
        if PROGRAM.match(code):
            try:
                words = shlex.split(code)
            except ValueError:
                raise AssertionError(f"{code}: no command") from None
            assert check(words, whole=False), code


@pytest.mark.parametrize("page", NAMES)
def test_files_and_modules_in_the_text_exist(page: str) -> None:
    for code in code_in(prose_of(page)):
        if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]*", code):
            assert (ROOT / code).exists(), code
        elif re.fullmatch(r"radan_ros(\.\w+)+", code) and code != "radan_ros.msg":  # which the build makes
            found: Any = radan_ros
            for depth, name in enumerate(code.split(".")[1:], 2):
                if not hasattr(found, name):
                    importlib.import_module(".".join(code.split(".")[:depth]))
                found = getattr(found, name)


@pytest.fixture(scope="module")
def options() -> set[str]:
    """The options of all our programs that can be imported here, and what else a page may name."""
    modules = {module for module, _ in (scripts() | executables()).values()} - {"radan_ros.ros.node"}
    known = {"--copies", "--shm-size", "--show-args"}
    for program in [*modules, "benchmark/tracking.py"]:
        parser = parser_of(program)
        if parser is not None:
            known |= options_of(parser)
    return known


@pytest.mark.parametrize("page", NAMES)
def test_options_in_the_text_are_options_of_a_program(page: str, options: set[str]) -> None:
    text = prose_of(page)
    if page == "docs/originals.md":  # ours are on the right
        text = "\n".join(cell for table in tables_of(text) for row in table for cell in row[1:])
    for code in code_in(text):
        for option in re.findall(r"^(--[a-z][\w-]*)", code):
            assert option in options, code


def test_parameters_are_those_of_the_node_with_its_defaults() -> None:
    rows = first_column("docs/robot.md", "## Parameters")
    assert set(rows) == set(CONFIGURATION)
    for name, row in rows.items():
        default = CONFIGURATION[name]
        words = "all" if name == "publish" else str(default).lower() if isinstance(default, bool) else str(default)
        assert row[1] == words, name
    assert all(name in rows["publish"][2] for name in CONFIGURATION["publish"])


def test_topics_and_services_are_those_of_the_node() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "radan_ros" / "ros").glob("*.py"))
    services = dict(re.findall(r'create_service\((\w+), "(~/\w+)"', source))
    topics = set(re.findall(r'"(~/\w+)"', source)) - set(services.values())
    assert {name for name in first_column("docs/robot.md", "## Topics") if name.startswith("~/")} == topics
    listed = first_column("docs/robot.md", "## Services")
    assert {name for name in listed if name not in ("~/change_state", "~/get_state")} == set(services.values())
    assert all(listed[topic][1].endswith(f"/{kind}") for kind, topic in services.items())
    for page in NAMES:
        for name in re.findall(r"(?<![\w.])/radan/(\w+)", read(page)):
            assert f"~/{name}" in topics | {*services.values()}, f"{page}: /radan/{name}"


def test_messages_are_those_of_the_package() -> None:
    assert set(first_column("docs/robot.md", "## Messages")) >= {path.stem for path in (ROOT / "msg").iterdir()}


def test_every_program_has_its_place_on_the_pages() -> None:
    text = "\n".join(read(page) for page in NAMES)
    assert [name for name in scripts() if not re.search(rf"{name}\b(?!-)", text)] == []
    targets = re.search(r"^\.PHONY: (.*)", read("Makefile"), re.MULTILINE)
    assert targets is not None
    assert [name for name in targets[1].split() if f"make {name}" not in text and name != "help"] == []


# --------------------------------------------------------------------------------------- the library, the originals


def test_stable_names_are_those_that_are_exported_and_documented() -> None:
    assert set(first_column("docs/library.md", "## Stable names")) == set(radan_ros.__all__)
    for name in radan_ros.__all__:
        assert len(getattr(radan_ros, name).__doc__ or "") > 30, name


# The options of the originals' programs, as their code declares them.
ORIGINALS = {
    "## main.py of 3DDFA and RADAN": """-f --files -m --mode --show_flg --bbox_init --dump_res
        --dump_vertex --dump_ply --dump_pts --dump_roi_box --dump_pose --dump_depth --dump_pncc --dump_paf --paf_size
        --dump_obj --dlib_bbox --dlib_landmark""",
    "## video_demo.py of 3DDFA": "-v --video -m --mode",
    "## benchmark.py of 3DDFA and RADAN": "--arch -c --checkpoint-fp",
    "## train.py and the training scripts of 3DDFA and RADAN": """-j --workers --epochs --start-epoch -b --batch-size
        -vb --val-batch-size --base-lr --learning-rate --momentum --weight-decay --wd --print-freq -p --resume
        --devices-id --filelists-train --filelists-val --root --snapshot --log-file --log-mode --size-average
        --num-classes --arch --frozen --milestones --task --test_initial --warmup --param-fp-train --param-fp-val
        --opt-style --resample-num --loss""",
    "## demo.py of 3DDFA_V2": "-c --config -f --img_fp -m --mode -o --opt --show_flag --onnx",
    "## demo_video.py, demo_video_smooth.py and demo_webcam_smooth.py of 3DDFA_V2": """-c --config -f --video_fp
        -m --mode -o --opt -n_pre -n_next -s --start -e --end --onnx""",
    "## latency.py of 3DDFA_V2": "-c --config -f --img_fp --onnx --warmup --dense_flag --repeated",
}


@pytest.mark.parametrize("heading", ORIGINALS)
def test_every_option_of_the_originals_has_a_row(heading: str) -> None:
    rows = first_column("docs/originals.md", heading)
    assert {name.split()[0] for name in rows} == set(ORIGINALS[heading].split())
    assert all(len(row) == 2 and row[1] for row in rows.values())


def test_entries_of_a_training_that_the_pages_name_exist() -> None:
    pytest.importorskip("torch", reason="a training's configuration needs torch")
    from radan_ros.training.config import as_mapping, read_config

    known = as_mapping(read_config(ROOT / "config" / "training" / "radan.yaml"))
    for row in first_column("docs/originals.md", "## train.py and the training scripts of 3DDFA and RADAN").values():
        for code in code_in(row[1]):
            if re.fullmatch(r"[a-z_]+(\.\w+)*", code) and not code.endswith(".csv"):
                found: Any = known
                for key in code.split("."):
                    found = found[int(key) if key.isdecimal() else key]


def test_every_section_of_figures_names_its_program() -> None:
    for heading in re.findall(r"^## .*$", read("docs/performance.md"), re.MULTILINE):
        assert "```bash" in section(read("docs/performance.md"), heading), heading


# ------------------------------------------------------------------------------------------------------ the gallery


def test_pictures_of_the_gallery_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").glob("gallery_*.jpg"))
    assert len(pictures) > 5
    assert [path.name for path in pictures if path.stat().st_size > 150_000] == []


def test_the_gallery_draws_textures_where_they_belong(tmp_path: Path) -> None:
    # A square of four colours, written and read back, from the front and turned.
    module = runpy.run_path(str(ROOT / "scripts" / "gallery.py"))
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    vertices = np.column_stack([0.1 * corners, np.zeros(4)]).astype(np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32, :32], texture[:32, 32:], texture[32:, :32], texture[32:, 32:] = 50, 100, 150, 200  # rows from the top
    path = radan_ros.write_mesh(tmp_path / "square.obj", vertices, triangles, uv=corners, texture=texture)
    mesh = module["read_obj"](path)
    np.testing.assert_allclose(mesh.uv[mesh.triangles].mean(axis=(0, 1)), [0.5, 0.5], atol=1e-6)
    both = module["textured_views"](mesh, texture, (0, 60), (100, 100))
    front, turned = both[:, :100, 0], both[:, 100:, 0]
    assert [front[y, x] for y in (30, 70) for x in (30, 70)] == [50, 100, 150, 200]
    assert [turned[y, x] for y in (30, 70) for x in (40, 60)] == [50, 100, 150, 200]
    assert turned[50, 15] == front[2, 2] == module["GROUND"][0], "half as wide at 60 degrees, on dark ground"
