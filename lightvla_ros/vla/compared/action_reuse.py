"""FlashVLA's reuse half (2505.21200), as a schedule of chunks: when the last chunk is given again.

Its rule: if the angle between the last two actions is small and the last two sets of kept patches
are nearly the same, the last action is used again, and nothing is computed. Here a chunk stands for
an action, as one vector of all its steps. A given chunk equals the one before, so that the rule
would hold for ever; therefore a chunk is computed after each that was given again.

The paper tunes the angle by budget (3 to 5.5 degrees, by its reviews); its text was not readable
here, and the share of common patches below is our choice.
"""

from __future__ import annotations

import math

from torch import Tensor

ANGLE = 5.0  # between two chunks, at most [degrees]
COMMON = 0.8  # of the newer chunk's patches, which the older one kept, too, at least


def is_stable(computed: list[tuple[Tensor, Tensor]]) -> bool:
    """Return whether the last two chunks are alike.

    :param computed: Actions [1, chunk, 7] and kept patches int64 [K] of up to two chunks, the
        newest last.
    """
    if len(computed) < 2:
        return False
    (old, before), (new, kept) = computed[-2:]
    old, new = old.double().flatten(), new.double().flatten()
    cosine = float(old @ new / (old.norm() * new.norm()))
    angle = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
    common = len(set(before.tolist()) & set(kept.tolist())) / len(kept)
    return angle <= ANGLE and common >= COMMON
