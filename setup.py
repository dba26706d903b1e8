"""`pip install .`: the library and the offline tools, without ROS. On a robot CMakeLists.txt builds it."""

from __future__ import annotations

import ctypes.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def requirements(name: str) -> list[str]:
    """Read requirements/<name>.txt without its comments."""
    lines = (HERE / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def core_requirements() -> list[str]:
    """Take opencv-python where it can be imported, that is where libGL is, and its headless build elsewhere.

    Both install the module cv2; the headless one over an opencv-python would take its windows from other programs.
    """
    names = requirements("core")
    if ctypes.util.find_library("GL"):
        names = [name.replace("opencv-python-headless", "opencv-python") for name in names]
    return names


package = ElementTree.parse(HERE / "package.xml").getroot()

setup(
    name="radan_ros",
    version=package.findtext("version"),
    description=" ".join((package.findtext("description") or "").split()),
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["radan_ros", "radan_ros.*"]),
    package_data={"radan_ros": ["**/*.cu", "**/*.yaml", "data/**/*"]},
    install_requires=core_requirements(),
    extras_require={
        "cuda": ["torch>=2.4", "cupy-cuda12x>=13"],
        "demo": requirements("demo"),
        "evaluate": requirements("evaluate"),
        "offline": requirements("offline"),
        "ray": ["ray>=2.9"],
        "train": ["torch>=2.4", "tensorboard"],
    },
    entry_points={
        "console_scripts": [
            "radan-reconstruct=radan_ros.programs:reconstruct",
            "radan-process-bag=radan_ros.programs:process_bag",
            "radan-benchmark=radan_ros.programs:benchmark",
            "radan-export=radan_ros.programs:export",
            "radan-face-model=radan_ros.programs:face_model",
            "radan-prepare=radan_ros.programs:prepare",
            "radan-train=radan_ros.programs:train",
            "radan-train-presence=radan_ros.programs:train_presence",
            "radan-label=radan_ros.programs:label",
            "radan-mark=radan_ros.programs:mark",
            "radan-evaluate=radan_ros.programs:evaluate",
        ]
    },
)
