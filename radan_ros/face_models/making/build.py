"""The built-in face model: template and modes put together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from radan_ros.face_models.face_model import FaceModel
from radan_ros.face_models.making.anatomy import find_eyeballs
from radan_ros.face_models.making.expressions import NAMES, expression_modes
from radan_ros.face_models.making.gaussian_process import shape_modes
from radan_ros.face_models.making.template import Template, make_template

# The bases are whole multiples of this, metres: that is how the file keeps them, and what makes every machine agree.
STEP = 2e-6


def build_face_model(template: Template | None = None) -> FaceModel:
    """Make the built-in face model; always the same one.

    Parameters
    ----------
    template : Template, optional
        By default that of `make_template`.
    """
    base = make_template() if template is None else template
    eyes = find_eyeballs(base)
    mean = base.vertices.astype(np.float32)
    low, high = mean.min(axis=0), mean.max(axis=0)
    return FaceModel(
        name="radan",
        mean=mean,
        shape_basis=_rounded(shape_modes(base, eyes)),
        expression_basis=_rounded(expression_modes(base, eyes)),
        triangles=np.ascontiguousarray(base.triangles, np.int32),
        landmarks=np.ascontiguousarray(base.landmarks, np.int32),
        # Projected normalized coordinate code: the mean face's coordinates as colours (Zhu et al., CVPR 2016).
        codes=(mean - low) / (high - low) * np.float32(255),
        unit=1.0,
        uv=np.ascontiguousarray(base.uv, np.float32),
        regions=base.regions,
        expression_names=NAMES,
    )


def _rounded(modes: NDArray[np.float64]) -> NDArray[np.float32]:
    """Multiples of `STEP`, as they come back from the file: zeros without a sign."""
    return np.rint(modes / STEP).astype(np.int16) * np.float32(STEP)
