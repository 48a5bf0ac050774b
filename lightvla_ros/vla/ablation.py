"""Token ablations: a model keeps other tokens than its pruner chose; only for evaluation.

They act on a model only inside ``with ablated(model, ...)``, in eval mode, and a model cannot be
exported there: the released code once contained a 10 % drop by mistake
(``docs/explanation/pruning.md``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightvla_ros.vla.pruner import Ablation

if TYPE_CHECKING:
    from lightvla_ros.vla.model import LightVLA


@contextmanager
def ablated(model: LightVLA, ablation: Ablation) -> Iterator[None]:
    """Apply an ablation to the tokens that a model keeps, inside the ``with`` block.

    :raises ValueError: When the model does not prune, or is in training mode.
    """
    if model.config.pruning.method == 'off':
        raise ValueError('pruning is off: there is nothing to ablate')
    if model.training:
        raise ValueError('an ablation is only for evaluation: call model.eval() first')
    model.ablation = ablation
    try:
        yield
    finally:
        model.ablation = None
