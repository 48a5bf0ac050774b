"""Towers that learn other looks from themselves, while the decoder and what it knows stay.

A policy whose towers learned other looks from the actions forgot tasks (``docs/history.md``). Here
the towers of the start say what a picture's tokens are, and the trained ones learn to give these
tokens for the same picture in other colours (``recolour.py``). The picture has its segmentation,
but needs no right action.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightvla_ros.vla import pruner
from lightvla_ros.vla.model import Context, LightVLA
from lightvla_ros.vla.vision import Projector, VisionBackbone

KEPT = 6.0  # how much more a token counts that the start keeps: the decoder sees these alone
CHOICE = 0.1  # weight of the queries' choice, relative to the tokens


class TokenTeacher(nn.Module):
    """Towers and projector of a model as they are now.

    :param model: With pruning ``lightvla``, before any step.
    """

    def __init__(self, model: LightVLA) -> None:
        super().__init__()
        with torch.device('meta'):
            self.towers, self.projector = VisionBackbone(model.config), Projector(model.config)
        for own, of_model in (
            (self.towers, model.vision_backbone),
            (self.projector, model.projector),
        ):
            now = {name: value.clone() for name, value in of_model.state_dict().items()}
            own.load_state_dict(now, assign=True)
        self.requires_grad_(False)

    def forward(
        self, model: LightVLA, pixels: Tensor, plain: Tensor, context: Context
    ) -> dict[str, Tensor]:
        """Compare the model's tokens with the teacher's.

        :param pixels: [B, cameras, 6, H, W], what the model sees.
        :param plain: The same pictures as recorded, which the teacher sees.
        :returns: ``tokens``, the squared error relative to the square of the teacher's tokens;
            ``choice``, the cross entropy of the queries' scores against the teacher's picks;
            and ``loss``, their sum by weight.
        """
        film = model.film_input(context)
        with torch.no_grad():
            wanted = self.projector(self.towers(plain, film)).float()
            scores = model.token_scores(wanted, context)
            weight = 1 + KEPT * pruner.kept_mask(scores)
        seen = model.projector(model.vision_backbone(pixels, film))
        error = (seen.float() - wanted).square().mean(-1)
        tokens = (weight * error).sum() / (weight * wanted.square().mean(-1)).sum()
        own = model.token_scores(seen, context)
        choice = F.cross_entropy(own.flatten(0, 1), scores.argmax(-1).flatten())
        return {'loss': tokens + CHOICE * choice, 'tokens': tokens, 'choice': choice}
