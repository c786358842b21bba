"""Keep left and right apart over time: a limb does not change places with its twin between two frames. Causal.

A model that is right most of the time still exchanges the legs or the arms now and then for some frames. The labelling
that goes on smoothly from the frames before is taken, limb by limb, until the model has insisted on the other one for
so long that it must be right. What a model never knows (who faces away) cannot be mended so; several cameras, or a
better model, can.
"""

from __future__ import annotations

import numpy as np

from streampose.structures import Skeleton

BETTER = 0.01  # of the box's side: by so much an exchanged limb must go on more smoothly
INSIST_SECONDS = 0.8  # for so long the model is not believed
FORGET_SECONDS = 0.3  # after a pause of that length nothing is known
SPEED_MEMORY = 0.6  # share of the old speed in the new one


def find_limbs(skeleton: Skeleton) -> list[np.ndarray]:
    """Pairs of limbs that may be confused: (P, 2) left and right joints each, from the trunk outwards.

    Two pairs of joints belong to one limb where a bone joins them.
    """
    pairs = list(skeleton.flip_pairs)
    of = {joint: n for n, pair in enumerate(pairs) for joint in pair}
    limb = list(range(len(pairs)))
    for bone in skeleton.bones:
        a, b = of.get(bone.parent), of.get(bone.child)
        if a is not None and b is not None and limb[a] != limb[b]:
            old = limb[b]
            limb = [limb[a] if n == old else n for n in limb]
    return [np.array([pairs[n] for n in range(len(pairs)) if limb[n] == name]) for name in dict.fromkeys(limb)]


class LeftRight:
    """Follows the sides of one subject.

    Attributes:
        exchanged: (L,) bool, the limbs whose sides are exchanged at present, in the order of `find_limbs`.
    """

    def __init__(self, skeleton: Skeleton, insist_seconds: float = INSIST_SECONDS):
        self._limbs = find_limbs(skeleton)
        self._num_joints, self._insist_seconds = skeleton.num_joints, insist_seconds
        self.reset()

    def reset(self) -> None:
        """Forget everything, as when the subject changes."""
        self._xy: np.ndarray | None = None
        self._speed = np.zeros((self._num_joints, 2))
        self._at = 0.0
        self._since = np.zeros(len(self._limbs))  # when each limb was exchanged
        self.exchanged = np.zeros(len(self._limbs), bool)

    def apply(self, xy: np.ndarray, t_seconds: float, side: float) -> np.ndarray:
        """The order in which the joints of one frame are to be taken: `xy[order]`.

        Args:
            xy: (K, 2) source pixels, as the model labels them.
            t_seconds: the moment, later than the last one.
            side: of the subject's box, in source pixels.

        Returns:
            (K,) joint numbers: a permutation that exchanges the limbs that are exchanged.
        """
        xy = np.asarray(xy, float)
        seconds = t_seconds - self._at
        order = np.arange(self._num_joints)
        if self._xy is None or not 0 < seconds <= FORGET_SECONDS:
            self.reset()
        else:
            expected = self._xy + self._speed * seconds
            for n, limb in enumerate(self._limbs):
                self._decide(n, xy[limb], expected[limb], t_seconds, side)
                if self.exchanged[n]:
                    order[limb] = limb[:, ::-1]
        out = xy[order]
        if self._xy is not None:
            speed = (out - self._xy) / seconds
            self._speed = SPEED_MEMORY * self._speed + (1 - SPEED_MEMORY) * speed
        self._xy, self._at = out, t_seconds
        return order

    def _decide(self, n: int, said: np.ndarray, expected: np.ndarray, now: float, side: float) -> None:
        """Whether one limb is exchanged: (P, 2, 2) as the model says it, and where it was going."""
        as_said = np.linalg.norm(said - expected, axis=-1).mean(-1) / side  # (P,)
        other = np.linalg.norm(said[:, ::-1] - expected, axis=-1).mean(-1) / side
        gain = as_said - other if not self.exchanged[n] else other - as_said
        if np.median(gain) > BETTER:  # of the pairs of joints, so that one that jumps decides nothing
            self.exchanged[n] = not self.exchanged[n]
            self._since[n] = now
        elif self.exchanged[n] and now - self._since[n] > self._insist_seconds:
            self.exchanged[n] = False
            self._speed[self._limbs[n]] = 0.0
