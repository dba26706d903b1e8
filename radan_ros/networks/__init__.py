"""The regression networks: 120x120 crops of faces in, 62 whitened parameters of camera, shape and expression out.

    network = open_network("mb05_120x120.pth")
    parameters = network(crops)    # (N, 120, 120, 3) uint8 BGR -> (N, 62) float32

``architecture`` tables of names and shapes; ``checkpoint`` reads torch files without torch; ``radan``, ``radan_mobile``
and ``mobilenet`` are torch modules; ``openvino_graphs`` the same as OpenVINO graphs; ``runtime`` opens and runs them.
"""

import sys

# OpenVINO's converter, which its import brings along, reports to its makers and leaves an id in the home folder where
# this optional package is there. A robot tells nobody. Here, before anything of ours can import it.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

from radan_ros.networks.architecture import PARAMETERS, NetworkSpec, state_shapes  # noqa: E402
from radan_ros.networks.checkpoint import Checkpoint, architecture_of, check_state, load_checkpoint, network_state  # noqa: E402
from radan_ros.networks.runtime import Network, export_network, open_network, torch_module  # noqa: E402

__all__ = [
    "PARAMETERS",
    "Checkpoint",
    "Network",
    "NetworkSpec",
    "architecture_of",
    "check_state",
    "export_network",
    "load_checkpoint",
    "network_state",
    "open_network",
    "state_shapes",
    "torch_module",
]
