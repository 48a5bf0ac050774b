"""Features of towers that are not trained, computed once, so that steps need no images.

The decoder then trains several times as fast on a CPU. Use this only after the towers are trained,
because later steps cannot change their features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightvla_ros.train.data import FrameStore
from lightvla_ros.train.views import Viewer
from lightvla_ros.vla.model import LightVLA

BATCH = 64


class GivenFeatures(nn.Module):
    """Replacement for the towers that takes their features instead of pixels."""

    def forward(self, features: Tensor, language: None = None) -> Tensor:
        """[B, Lv, D'] -> the same."""
        return features


class TowerFeatures:
    """The features of all frames, in fp16; the towers are removed from the model.

    :param model: A model without FiLM, because FiLM's towers read the instruction.
    :param viewer: Its views must be the same in every step, without augmentation.
    """

    def __init__(self, model: LightVLA, store: FrameStore, viewer: Viewer, progress: bool) -> None:
        towers = model.vision_backbone.eval()
        shape = (len(store), model.config.patches, model.config.vision_width)
        self._features = torch.empty(shape, dtype=torch.float16)
        device = next(towers.parameters()).device
        with torch.no_grad():
            for first in tqdm(range(0, len(store), BATCH), 'towers', disable=not progress):
                rows = np.arange(first, min(first + BATCH, len(store)))
                views = viewer.evaluation(store.gather(rows, instances=False).images)
                self._features[rows] = towers(views.pixels.to(device)).half().cpu()
        model.vision_backbone = GivenFeatures()

    def of(self, rows: Tensor) -> Tensor:
        """Return float32 [B, Lv, D'] of some frames."""
        return self._features[rows].float()
