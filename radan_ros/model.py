"""A model is what turns a crop into a face: network, whitening and face model, opened together from one folder."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from radan_ros.face_models import FaceModel, read_3ddfa, read_3ddfa_v2, read_face_model
from radan_ros.pickles import load_arrays

if TYPE_CHECKING:
    from radan_ros.networks import Network

_BUILTIN = Path(str(resources.files("radan_ros"))) / "data" / "model"


@dataclass(frozen=True)
class Whitening:
    """Mean and standard deviation that a network's outputs were divided by in training; both (62,) float32."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def undo(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network outputs (N, 62) to parameters (N, 62)."""
        return outputs * self.std + self.mean


@dataclass(frozen=True)
class Model:
    """Network, whitening and face model that belong together.

    Attributes
    ----------
    name : str
    network : Network
        Crops (N, 120, 120, 3) uint8 BGR to whitened parameters (N, 62).
    whitening : Whitening
    face_model : FaceModel
    network_file : Path, optional
        Where the network came from.
    """

    name: str
    network: Network
    whitening: Whitening
    face_model: FaceModel
    network_file: Path | None = None


def read_whitening(path: str | Path) -> Whitening:
    """Read whitening figures: ours (``.npz`` with mean, std), 3DDFA's or 3DDFA_V2's ``.pkl``.

    Raises
    ------
    ValueError
        Names the file and what is missing or wrong in it.
    """
    source = Path(path)
    if not source.is_file():
        raise ValueError(f"{source} is missing")
    if source.suffix == ".npz":
        try:
            with np.load(source, allow_pickle=False) as file:
                content = {name: file[name] for name in file}
        except Exception as e:  # zip and header errors of many kinds
            raise ValueError(f"{source}: not a file of arrays: {e}") from None
    else:
        content = load_arrays(source)
    if not isinstance(content, dict):
        raise ValueError(f"{source}: no mean and std in it")
    mean, std = (content.get(key, content.get(f"param_{key}")) for key in ("mean", "std"))
    if mean is None or std is None:
        raise ValueError(f"{source}: no mean and std in it")
    arrays = [np.ascontiguousarray(a, np.float32).reshape(-1) for a in (mean, std)]
    for name, array in zip(("mean", "std"), arrays, strict=True):
        if array.shape != (62,) or not np.isfinite(array).all():
            raise ValueError(f"{source}: {name} is not 62 finite numbers")
    if (arrays[1] <= 0).any():
        raise ValueError(f"{source}: std is not over 0")
    return Whitening(*arrays)


def builtin_model() -> Path | None:
    """Folder of the model that comes with the package, or None when this build has none."""
    return _BUILTIN if (_BUILTIN / "model.yaml").is_file() else None


def open_face_model(path: str) -> FaceModel:
    """Open a face model of any format.

    Parameters
    ----------
    path : str
        'builtin', a file of our format (``.npz``), 3DDFA's folder, or 3DDFA_V2's ``.pkl``.

    Raises
    ------
    ValueError, OSError
        Say what is missing or wrong.
    """
    if path == "builtin":
        return read_face_model(_existing(_BUILTIN / "face_model.npz"))
    source = Path(path)
    if source.is_dir():
        return read_3ddfa(path)
    if source.suffix == ".npz" and source.exists():
        return read_face_model(path)
    slim = source.with_name(source.stem + "_slim.pkl")  # which `read_3ddfa_v2` takes instead
    if source.suffix == ".pkl" and (source.exists() or slim.exists()):
        return read_3ddfa_v2(path)
    raise ValueError(f"{path}: no such face model (builtin, a .npz of ours, 3DDFA's folder, or 3DDFA_V2's .pkl)")


def open_model(folder: str | Path | None = None, *, device: str = "auto", threads: int | None = None) -> Model:
    """Open a model folder of any known layout.

    Parameters
    ----------
    folder : path, optional
        - ours: ``model.yaml`` with the keys ``name``, ``network``, ``whitening``, ``face_model`` (paths in the folder);
        - 3DDFA_V2: ``configs/*.yml`` with ``checkpoint_fp`` and ``bfm_fp``, and the files that they name;
        - 3DDFA and RADAN: ``train.configs/``, ``visualize/tri.mat`` and one checkpoint in ``models/``.

        Without it, the built-in model.
    device : {'auto', 'cpu', 'cuda', 'cuda:<i>'}
        Where the network runs.
    threads : int, optional
        Threads of the network on a CPU.

    Raises
    ------
    ValueError, OSError
        Say which file is missing or wrong.
    """
    if folder is None or str(folder) == "":
        builtin = builtin_model()
        if builtin is None:
            raise ValueError(
                "no model was named, and this build has none built in: name a folder (parameter or option model)"
            )
        folder = builtin
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ValueError(f"model folder {root} " + ("is not a folder" if root.exists() else "does not exist"))
    if (root / "model.yaml").is_file():
        return _open_native(root, device, threads)
    if (root / "train.configs").is_dir():
        return _open_3ddfa(root, device, threads)
    configs = sorted((root / "configs").glob("*.yml"))
    if configs:
        return _open_3ddfa_v2(root, configs, device, threads)
    raise ValueError(
        f"{root} is no model folder: it has neither model.yaml, configs/*.yml (3DDFA_V2) nor train.configs/ (3DDFA)"
    )


def _open_native(root: Path, device: str, threads: int | None) -> Model:
    from radan_ros.networks import open_network

    config = _yaml(root / "model.yaml", ("name", "network", "whitening", "face_model"))
    network = open_network(root / config["network"], device=device, threads=threads)
    face_model = read_face_model(_existing(root / config["face_model"]))
    if face_model.modes != 50:
        raise ValueError(f"{root / config['face_model']}: has {face_model.modes} modes; networks answer with 50")
    return Model(
        config["name"],
        network,
        read_whitening(root / config["whitening"]),
        face_model,
        root / config["network"],
    )


def _open_3ddfa_v2(root: Path, configs: list[Path], device: str, threads: int | None) -> Model:
    from radan_ros.networks import open_network

    if len(configs) > 1:
        # Several configurations share one folder in a 3DDFA_V2 checkout: take those whose checkpoint is there.
        present = [c for c in configs if (root / str(_yaml(c).get("checkpoint_fp", "-"))).is_file()]
        if len(present) != 1:
            names = ", ".join(c.name for c in present or configs)
            raise ValueError(f"{root / 'configs'}: keep one configuration whose checkpoint is there ({names})")
        configs = present
    config = _yaml(configs[0], ("checkpoint_fp", "bfm_fp"))
    checkpoint = root / config["checkpoint_fp"]
    size = config.get("size", "120")
    whitening = config.get("param_mean_std_fp", f"configs/param_mean_std_62d_{size}x{size}.pkl")
    return Model(
        configs[0].stem,
        open_network(checkpoint, device=device, threads=threads),
        read_whitening(root / whitening),
        read_3ddfa_v2(root / config["bfm_fp"]),
        checkpoint,
    )


def _open_3ddfa(root: Path, device: str, threads: int | None) -> Model:
    from radan_ros.networks import open_network

    checkpoints = sorted(
        p for p in (root / "models").glob("*") if p.name.endswith((".pth", ".pth.tar", ".onnx", ".xml"))
    )
    if len(checkpoints) != 1:
        found = ", ".join(p.name for p in checkpoints) or "none"
        raise ValueError(
            f"{root / 'models'}: one checkpoint (.pth, .pth.tar, .onnx, .xml) is needed there; found: {found}"
        )
    return Model(
        checkpoints[0].name.split(".")[0],
        open_network(checkpoints[0], device=device, threads=threads),
        read_whitening(root / "train.configs" / "param_whitening.pkl"),
        read_3ddfa(root),
        checkpoints[0],
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    return path


def _yaml(path: Path, needed: tuple[str, ...] = ()) -> dict[str, str]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as e:
        raise ValueError(f"{path}: cannot be read: {' '.join(str(e).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: is not a list of key: value")
    missing = [key for key in needed if key not in content]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}")
    return {str(key): str(value) for key, value in content.items()}
