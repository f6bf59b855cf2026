# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Steadier labels: earlier class probabilities, moved by optical flow, where confidence is low.

Nothing is trained: the input is two frames and their scores. Between ``step`` and ``decode`` it
takes the coarse scores of a frame and returns those of the mixture. The constants were chosen on
CamVid's val; docs/results.md says what they give there.
"""
from functools import lru_cache
from typing import NamedTuple, Optional

import cv2
import numpy as np
from numpy.typing import NDArray

PIXEL = 2       # power of the ratio of confidences, pixel by pixel ...
FRAME = 30      # ... and of their means: a bad frame is unsure as a whole
FADE = 0.98     # of the memory's mean confidence per frame of age: no memory stays for ever
# errors of the picture that a flow predicts are in units of its contrast (standard deviation)
ERROR = 0.1     # at a pixel: the memory counts half there
DOUBT = 0.2     # mean from which on the flow is not believed ...
GUESS = 0.1     # ... and the trust in the last flow then ...
WASHED = 4      # ... times this power of the contrast that was lost, to glare or fog
SMALLEST = 48   # height and width below which DIS cannot halve twice
FLOOR = 1e-12   # smallest probability: its logarithm is finite
LIMIT = np.float32(1e30)

Floats = NDArray[np.float32]


class Memory(NamedTuple):
    """
    What is kept of the frames so far.

    gray uint8 [H / 2, W / 2]: the last frame; flow float32 [H / 2, W / 2, 2]: the last that was
    believed, in pixels of gray, or None; probabilities float32 [K, h, w]; age: mean number of
    frames since what they hold was seen.
    """

    gray: NDArray[np.uint8]
    flow: Optional[NDArray[np.float32]]
    probabilities: NDArray[np.float32]
    age: float


def stabilize(scores: NDArray[np.float32], gray: NDArray[np.uint8],
              memory: Optional[Memory]) -> tuple[NDArray[np.float32], Memory]:
    """
    Mix the class probabilities of earlier frames into those of a new one.

    At a pixel the memory's weight is ``m / (m + n)``. With the memory's confidence c (its largest
    probability), m is ``t * c ** PIXEL``; the trust t in the flow is 0 where it leaves the frame,
    1 where it predicts the new picture, and less the further it is off. With the new frame's
    confidence c', n is ``c' ** PIXEL * r ** FRAME``, where r (at most 1) is the mean of c' over
    the mean of c, which fades with the memory's age.

    Args:
        scores: of the new frame, float32 [K, h, w]; NaN counts as lowest.
        gray: the new frame at half the network's size, uint8.
        memory: what the call for the frame before returned; None for the first frame.

    Returns:
        Scores float32 [K, h, w], the logarithms of the mixture (the scores given, without a
        memory), and the memory for the next call.
    """
    new = _softmax(scores)
    if memory is None:
        return scores, Memory(gray, None, new, 0.0)
    flow, trust = _flow(gray, memory)
    old, inside = _warp(memory.probabilities, flow)
    confidence, remembered = new.max(0), old.max(0)
    ratio = float(confidence.mean()) / (float(remembered.mean()) * FADE ** memory.age)
    kept = inside * _resize(trust, inside.shape) * remembered ** PIXEL
    weight = kept / (kept + confidence ** PIXEL * np.float32(min(ratio, 1.0) ** FRAME))
    new += weight * (old - new)
    age = float(weight.mean()) * (memory.age + 1)
    return np.log(np.maximum(new, np.float32(FLOOR))), Memory(gray, flow, new, age)


class Stabilizer:
    """``stabilize`` for the frames of one camera, in order; used by one thread."""

    def __init__(self) -> None:
        self._memory: Optional[Memory] = None

    def __call__(self, scores: NDArray[np.float32],
                 image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """
        Return the scores of the next frame with earlier frames mixed in.

        Args:
            scores: of the frame, float32 [K, h, w].
            image: the frame at the network's size, uint8 [H, W, 3], RGB or BGR.
        """
        scores, self._memory = stabilize(scores, half_gray(image), self._memory)
        return scores

    def reset(self) -> None:
        """Forget all earlier frames."""
        self._memory = None


def half_gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Green channel of an image uint8 [H, W, 3], RGB or BGR, at half its size, uint8."""
    height, width = (max(SMALLEST, size // 2) for size in image.shape[:2])
    return cv2.resize(cv2.extractChannel(image, 1), (width, height), interpolation=cv2.INTER_AREA)


def _softmax(scores: Floats) -> Floats:
    finite = np.fmin(np.fmax(scores, -LIMIT), LIMIT)    # fmax leaves out NaN
    finite -= finite.max(0)
    np.exp(finite, out=finite)
    finite /= finite.sum(0)
    return finite


def _flow(gray: NDArray[np.uint8], memory: Memory) -> tuple[Floats, Floats]:
    """
    Return the optical flow from a frame to the one before it, and the trust in it.

    The flow is float32 [H / 2, W / 2, 2] in pixels, the trust float32 [H / 2, W / 2] in (0, 1].
    Where DIS does not explain the frame (glare, darkness, lost rows), the last flow is a better
    guess: a camera's motion changes little from frame to frame.
    """
    # at half of gray's size as the preset medium, without its refinement, in a third of its time
    method = cv2.DISOpticalFlow_create(     # type: ignore[attr-defined]
        cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    method.setFinestScale(1)
    flow = method.calc(gray, memory.gray, None)
    moved = cv2.remap(memory.gray, *_places(flow), cv2.INTER_LINEAR,
                      borderMode=cv2.BORDER_REPLICATE)
    contrast, left = (max(1.0, float(frame.std())) for frame in (memory.gray, gray))
    error = cv2.absdiff(gray, moved).astype(np.float32) / np.float32(contrast)
    if error.mean() <= DOUBT:
        return flow, 1 / (1 + (error / np.float32(ERROR)) ** 2)
    last = np.zeros_like(flow) if memory.flow is None else memory.flow
    return last, np.full_like(error, min(1.0, GUESS * (contrast / left) ** WASHED))


def _warp(planes: Floats, flow: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return planes [K, h, w] from where the flow points, and if that is inside, [h, w]."""
    height, width = planes.shape[1:]
    scale = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
    x, y = _places(scale * _resize(flow, (height, width)))
    warped = np.stack([cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                       for plane in planes])
    return warped, (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


def _resize(field: Floats, size: tuple[int, ...]) -> Floats:
    """Return a field [H / 2, W / 2] or [H / 2, W / 2, 2] on the grid (h, w) of the scores."""
    return cv2.resize(field, (size[1], size[0]), interpolation=cv2.INTER_AREA
                      if size[0] < field.shape[0] else cv2.INTER_LINEAR)


def _places(flow: Floats) -> tuple[Floats, Floats]:
    """Return the column and row that each pixel's flow points at, [h, w] each."""
    x, y = _axes(*flow.shape[:2])
    return x + flow[..., 0], y + flow[..., 1]


@lru_cache(maxsize=16)
def _axes(height: int, width: int) -> tuple[Floats, Floats]:
    return np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
