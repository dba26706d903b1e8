"""Opens a network and runs it on batches of crops: OpenVINO on the CPU, torch on CUDA (or on the CPU, to compare).

The device is chosen once, in `open_network`. OpenVINO and torch are imported only when they are needed.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from radan_ros.networks.architecture import INPUT_SIZE, PARAMETERS, NetworkSpec, State, has_presence
from radan_ros.networks.checkpoint import load_checkpoint, network_state

Crops = NDArray[np.uint8]
Parameters = NDArray[np.float32]
Logits = NDArray[np.float32]

MEAN, SCALE = 127.5, 128.0  # the networks see (pixel - MEAN) / SCALE
GRAPH_SUFFIXES = (".xml", ".onnx")
PRECISIONS = ("f32", "bf16", "f16")
# A graph compiled for one crop alone answers it 20 % sooner than one for any number, if the network is small; in the
# full RADAN network nothing is gained, and its 229 MB of weights would lie in memory twice.
_SMALL_NETWORK = 64 << 20  # bytes of weights


class Network(Protocol):
    """A network that is ready to run.

    Attributes
    ----------
    name : str
        Which network, for instance 'mobilenet_v1 x0.5' or 'radan'.
    device : str
        'cpu', or 'cuda:0' and so on.
    """

    name: str
    device: str

    def __call__(self, crops: Crops) -> Parameters:
        """Regress whitened parameters.

        Parameters
        ----------
        crops : (N, 120, 120, 3) uint8
            BGR; N may be 0. Normalisation is the network's own business.

        Returns
        -------
        (N, 62) float32
            Whitened parameters: 12 camera (row-major 3x4), 40 shape, 10 expression.

        Raises
        ------
        ValueError
            The crops have another shape or type.
        """
        ...

    def run(self, crops: Crops) -> tuple[Parameters, Logits | None]:
        """Regress, and judge the answers where the network has a head for that.

        Parameters
        ----------
        crops
            As above.

        Returns
        -------
        parameters : (N, 62) float32
            As above.
        logits : (N,) float32 or None
            Of `radan_ros.presence`; None without such a head.

        Raises
        ------
        ValueError
            The crops have another shape or type.
        """
        ...


def open_network(
    path: str | Path, device: str = "auto", runtime: str = "auto", threads: int | None = None, precision: str = "f32"
) -> Network:
    """Open a checkpoint or an exported network and make it ready to run.

    Parameters
    ----------
    path : str or Path
        A torch checkpoint (``.pth``, ``.pth.tar``; read without torch) of RADAN, radan_mobile or 3DDFA's
        MobileNet-V1; or an exported graph: ``.xml`` (OpenVINO, see `export_network`) or ``.onnx`` (3DDFA_V2's too).
    device : str
        'cpu', 'cuda', 'cuda:1' and so on, or 'auto': CUDA if torch is installed and finds it (and the file is a
        checkpoint), else the CPU.
    runtime : str
        'openvino', 'torch', or 'auto': torch on CUDA, OpenVINO on the CPU.
    threads : int, optional
        CPU threads of OpenVINO; by default its own choice. Torch's number of threads belongs to the whole process and
        is left alone.
    precision : str
        Of OpenVINO's arithmetic: 'f32', 'bf16' or 'f16'. OpenVINO left to itself takes bf16 where the processor has
        it, and is then off by several percent.

    Returns
    -------
    Network

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is corrupt or no network of ours, or the device, runtime or precision cannot be had.
    ImportError
        The runtime is not installed; names the package.
    """
    path = Path(path)
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such network file")
    is_graph = path.suffix.lower() in GRAPH_SUFFIXES
    runtime, device = choose(device, runtime, is_graph)
    if is_graph:
        model, name = _read_graph(path)
        return OpenVinoNetwork(model, name, threads, precision)
    spec, state = network_state(load_checkpoint(path))
    if runtime == "torch":
        return TorchNetwork(spec, state, device)
    return OpenVinoNetwork(_graphs().build(spec, state), str(spec), threads, precision)


def choose(device: str, runtime: str, is_graph: bool = False) -> tuple[str, str]:
    """Settle runtime and device: the one place where this is decided.

    Parameters
    ----------
    device, runtime : str
        As for `open_network`.
    is_graph : bool
        The network is an exported graph, which only OpenVINO reads.

    Returns
    -------
    runtime : str
        'openvino' or 'torch'.
    device : str
        'cpu' or 'cuda:0' and so on.

    Raises
    ------
    ValueError
        The two do not go together, or there is no such device.
    ImportError
        Torch is asked for and not installed.
    """
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdecimal())):
        raise ValueError(f"device {device!r} is none of 'auto', 'cpu', 'cuda', 'cuda:<number>'")
    if runtime not in ("auto", "openvino", "torch"):
        raise ValueError(f"runtime {runtime!r} is none of 'auto', 'openvino', 'torch'")
    if is_graph and (kind == "cuda" or runtime == "torch"):
        raise ValueError(
            "an exported network (.xml, .onnx) runs in OpenVINO on the CPU: for CUDA or torch give its checkpoint"
        )
    if kind == "cuda" and runtime == "openvino":
        raise ValueError("OpenVINO runs on the CPU here: for CUDA take the runtime 'torch' or 'auto'")
    if kind == "auto":
        kind = "cuda" if not is_graph and runtime != "openvino" and _cuda_devices() else "cpu"
    if kind == "cpu":
        return ("torch" if runtime == "torch" else "openvino"), "cpu"
    try:
        torch = _torch()
    except ImportError as error:
        raise ImportError(f"device {device!r}: {error}") from error
    number = int(index or 0)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= count:
        built = "" if torch.version.cuda or torch.version.hip else " (this torch was built without it)"
        raise ValueError(f"device {device!r}: torch finds {count} CUDA devices{built}; take 'cpu' or 'auto'")
    return "torch", f"cuda:{number}"


def export_network(path: str | Path, out: str | Path) -> Path:
    """Write a checkpoint as an OpenVINO graph (float32), which opens without torch and without the checkpoint.

    Parameters
    ----------
    path : str or Path
        Torch checkpoint.
    out : str or Path
        The ``.xml`` to write; the weights go beside it in a ``.bin``. Its folder must exist. Both files appear whole
        or not at all.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    OSError, ValueError, ImportError
        As `open_network`; or ``out`` cannot be written.
    """
    path, out = Path(path), Path(out)
    if out.suffix != ".xml":
        raise ValueError(f"{out}: an OpenVINO graph is written to a file that ends in .xml")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: no such folder to write to")
    spec, state = network_state(load_checkpoint(path))
    ov = _openvino()
    model = _graphs().build(spec, state)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        whole = Path(folder) / out.name
        try:
            ov.save_model(model, str(whole), compress_to_fp16=False)
        except RuntimeError as error:
            raise OSError(f"{out}: cannot be written ({_last_line(error)})") from None
        for suffix in (".bin", ".xml"):
            os.replace(whole.with_suffix(suffix), out.with_suffix(suffix))
    return out


class OpenVinoNetwork:
    """A network in OpenVINO on the CPU.

    Parameters
    ----------
    model : openvino.Model
        Takes (N, 120, 120, 3) uint8, or (N, 3, 120, 120) float32 that is already normalised (3DDFA_V2's ONNX), with N
        free or 1.
    name : str
    threads : int, optional
    precision : str
        'f32', 'bf16' or 'f16'.
    """

    device = "cpu"

    def __init__(self, model: Any, name: str, threads: int | None = None, precision: str = "f32") -> None:
        self.name = name
        self._takes_pixels = model.input(0).get_element_type().get_type_name() == "u8"
        self._output = _output_index(model)
        self._columns = int(model.output(self._output).get_partial_shape()[1].get_length())
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = str(threads)
        core = _openvino().Core()
        self._any: Any = None  # any number of crops at once; None where the file allows only one
        self._one: Any = None  # one crop, where that pays
        if model.input(0).get_partial_shape().is_dynamic:
            self._any = core.compile_model(model, "CPU", config)
        if self._any is None or _weight_bytes(model) < _SMALL_NETWORK:
            alone = model.clone()
            alone.reshape([1, *_item_shape(model)])
            self._one = core.compile_model(alone, "CPU", config)
        self._lock = threading.Lock()  # a compiled model's default request serves one call at a time

    def __call__(self, crops: Crops) -> Parameters:
        return self.run(crops)[0]

    def run(self, crops: Crops) -> tuple[Parameters, Logits | None]:
        return _parted(self._answer(crops))

    def _answer(self, crops: Crops) -> NDArray[np.float32]:
        _check_crops(crops)
        if len(crops) == 0:
            return np.zeros((0, self._columns), np.float32)
        batch = np.ascontiguousarray(crops if self._takes_pixels else _normalised(crops))
        with self._lock:
            if self._one is not None and (len(batch) == 1 or self._any is None):
                return np.concatenate([self._run(self._one, batch[i : i + 1]) for i in range(len(batch))])
            return self._run(self._any, batch)

    def _run(self, compiled: Any, batch: NDArray[Any]) -> NDArray[np.float32]:
        return np.array(compiled(batch, share_inputs=True)[self._output], np.float32)


class TorchNetwork:
    """A network in torch, on CUDA or on the CPU, in float32.

    Parameters
    ----------
    spec : NetworkSpec
    state : dict of arrays
        As `checkpoint.network_state` returns it.
    device : str
        'cpu' or 'cuda:0' and so on.
    """

    def __init__(self, spec: NetworkSpec, state: State, device: str) -> None:
        self._torch = torch = _torch()
        self.name, self.device = str(spec), device
        module = torch_module(spec, state).eval().requires_grad_(False)
        self._module = module.to(device, memory_format=torch.channels_last)
        self._columns = PARAMETERS + has_presence(state)

    def __call__(self, crops: Crops) -> Parameters:
        return self.run(crops)[0]

    def run(self, crops: Crops) -> tuple[Parameters, Logits | None]:
        return _parted(self._answer(crops))

    def _answer(self, crops: Crops) -> NDArray[np.float32]:
        _check_crops(crops)
        if len(crops) == 0:
            return np.zeros((0, self._columns), np.float32)
        torch = self._torch
        kind = self.device.partition(":")[0]
        # No TF32: it costs three digits. No cuDNN benchmark: the number of faces changes from image to image, and each
        # new one would be timed anew.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)
        with torch.inference_mode(), torch.autocast(kind, enabled=False), exact:
            pixels = torch.tensor(crops, device=self.device)  # bytes go up: a quarter of the floats
            images = pixels.permute(0, 3, 1, 2).float().sub_(MEAN).div_(SCALE)  # NHWC is torch's channels_last
            return cast("NDArray[np.float32]", self._module(images).cpu().numpy())


def torch_module(spec: NetworkSpec, state: State | None = None) -> Any:
    """Make a network as a torch module, for training or to compare with.

    Parameters
    ----------
    spec : NetworkSpec
    state : dict of arrays, optional
        Weights as `checkpoint.network_state` returns them; without them torch's own initialisation, and no head for
        presence.

    Returns
    -------
    torch.nn.Module
        Takes (N, 3, 120, 120) float32 BGR crops, (pixel - 127.5) / 128; returns (N, 62) whitened parameters,
        with a head for presence (N, 63).
    """
    torch = _torch()
    if spec.name == "radan":
        module: Any = importlib.import_module("radan_ros.networks.radan").Radan()
    elif spec.name == "radan_mobile":
        module = importlib.import_module("radan_ros.networks.radan_mobile").RadanMobile(
            presence=state is not None and has_presence(state)
        )
    else:
        module = importlib.import_module("radan_ros.networks.mobilenet").MobileNetV1(spec.width)
    if state is not None:
        module.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=True)
    return module


def _parted(answer: NDArray[np.float32]) -> tuple[Parameters, Logits | None]:
    """What a network answers, (N, 62 or 63), as parameters and the logit for presence."""
    return answer[:, :PARAMETERS], answer[:, PARAMETERS] if answer.shape[1] > PARAMETERS else None


def _check_crops(crops: Crops) -> None:
    shape = (INPUT_SIZE, INPUT_SIZE, 3)
    if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != shape:
        got = f"{crops.dtype} {crops.shape}" if isinstance(crops, np.ndarray) else type(crops).__name__
        raise ValueError(f"crops must be uint8 (N, {INPUT_SIZE}, {INPUT_SIZE}, 3), not {got}")


def _normalised(crops: Crops) -> NDArray[np.float32]:
    """(N, 120, 120, 3) uint8 to (N, 3, 120, 120) float32, as networks take it that do not normalise by themselves."""
    return (crops.transpose(0, 3, 1, 2).astype(np.float32) - np.float32(MEAN)) / np.float32(SCALE)


def _read_graph(path: Path) -> tuple[Any, str]:
    """Read an exported graph and make sure that it is one of ours: the model and its name."""
    if path.suffix.lower() == ".xml" and not path.with_suffix(".bin").is_file():
        raise FileNotFoundError(f"{path}: its weights, {path.with_suffix('.bin').name}, are not beside it")
    core = _openvino().Core()
    try:
        model = core.read_model(str(path))
    except Exception as error:  # OpenVINO raises RuntimeError and its own kinds, with a stack of C++ file names
        raise ValueError(f"{path}: OpenVINO cannot read it ({_last_line(error)})") from None
    if len(model.inputs) != 1:
        raise ValueError(f"{path}: not a network of ours: it has {len(model.inputs)} inputs instead of 1")
    port = model.input(0)
    kind, shape = port.get_element_type().get_type_name(), port.get_partial_shape()
    sizes = _sizes(shape)
    if kind not in _LAYOUTS or sizes is None or tuple(sizes[1:]) != _LAYOUTS[kind]:
        wanted = "u8 [?,120,120,3] or f32 [?,3,120,120]"
        raise ValueError(f"{path}: not a network of ours: it takes {kind} {shape.to_string()} instead of {wanted}")
    if sizes[0] not in (None, 1):
        raise ValueError(f"{path}: it takes exactly {sizes[0]} crops at once; export it for 1 or for any number")
    if _output_index(model) is None:
        outputs = ", ".join(output.get_partial_shape().to_string() for output in model.outputs)
        raise ValueError(f"{path}: not a network of ours: it answers {outputs} instead of [?,{PARAMETERS}]")
    info = _graphs().RT_INFO
    return model, str(model.get_rt_info(info).value) if model.has_rt_info(info) else path.stem


_LAYOUTS = {"u8": (INPUT_SIZE, INPUT_SIZE, 3), "f32": (3, INPUT_SIZE, INPUT_SIZE)}


def _item_shape(model: Any) -> tuple[int, ...]:
    return _LAYOUTS[model.input(0).get_element_type().get_type_name()]


def _output_index(model: Any) -> int | None:
    """Which output holds the 62 parameters, alone or with the logit for presence."""
    for index, output in enumerate(model.outputs):
        sizes = _sizes(output.get_partial_shape())
        if sizes is not None and len(sizes) == 2 and sizes[1] in (PARAMETERS, PARAMETERS + 1):
            return index
    return None


def _sizes(shape: Any) -> list[int | None] | None:
    """A partial shape of OpenVINO as a list, None for a free size; None where even the rank is free."""
    if shape.rank.is_dynamic:
        return None
    return [size.get_length() if size.is_static else None for size in shape]


def _last_line(error: Exception) -> str:
    """What an exception of OpenVINO says, without the C++ file names above it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _weight_bytes(model: Any) -> int:
    return sum(node.get_byte_size() for node in model.get_ops() if node.get_type_name() == "Constant")


def _cuda_devices() -> int:
    """Number of CUDA devices; 0 also where torch is not installed."""
    if sys.platform == "linux" and not _gpu_driver():
        return 0  # without the second that importing torch takes
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return 0
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def _gpu_driver() -> bool:
    """Whether a driver is there that torch could use: NVIDIA's, found as CUDA finds it, or AMD's."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ImportError("CUDA needs the package torch (pip install torch cupy-cuda12x; 2 GB and more)") from error


def _openvino() -> Any:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ImportError("networks on the CPU need the package openvino: pip install openvino") from error


def _graphs() -> Any:
    _openvino()  # for its message
    return importlib.import_module("radan_ros.networks.openvino_graphs")
