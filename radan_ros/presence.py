"""How sure an answer of a network is: the probability that the square shows a face, and that the answer fits it.

A network regresses something for any picture. Two things tell a face from a wall:

- the logit of a head of its own, learned on faces and on what is none (`radan_ros.training.presence`): the built-in
  network has one;
- for networks without it, the camera. The 12 numbers of a weak-perspective camera are a scaled rotation only as far as
  the network has learned them to be, and it has learned that on faces. `radan_mobile` is trained to answer scaled
  rotations (`LossMix.rigidity`) and does so for walls, too: of one without the head this drops little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.pose import consistency

# Logit by the logarithm of `pose.consistency`: a logistic regression on the answers of 3DDFA_V2's MobileNet x0.5 to
# 3,000 faces in squares of a detector and of a follower, and to 3,500 squares beside them and of wrong size. Weighted
# as if seven squares in ten showed a face, because to drop one is the worse mistake: 0.4 % of faces are then under 0.5,
# and 5 % of other squares above (benchmark/presence.py; at one half 0.8 % and 3 %).
_SLOPE, _OFFSET = 57.7, 5.92


def confidence(cameras: ArrayLike, logits: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Probability that each answer is one to a face, and fits it.

    Parameters
    ----------
    cameras : (N, 3, 4) array_like
        Weak-perspective cameras, face model to pixels.
    logits : (N,) float32, optional
        Of the network's head for presence; without them the cameras decide.

    Returns
    -------
    (N,) float32
        0 .. 1.
    """
    if logits is None:
        scales = np.array([consistency(camera) for camera in np.asarray(cameras, np.float64)])
        logits = (_OFFSET + _SLOPE * np.log(np.maximum(scales, 1e-6))).astype(np.float32)
    # The logistic function, without an overflow at either end.
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), np.float32)
