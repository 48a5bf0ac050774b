"""Features of towers that are not trained, computed once: no step sees an image.

The decoder then learns several times as fast on a CPU. It is for a stage after the towers have
learnt: what they leave out, no step can bring back.
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


class _Given(nn.Module):
    """Stands in the towers' place and takes their features for pixels."""

    def forward(self, features: Tensor, language: None = None) -> Tensor:
        return features


class TowerFeatures:
    """The features of all frames, in fp16; takes the towers out of the model.

    :param model: Without FiLM, whose towers read the instruction.
    :param viewer: Its views must be the same in every step: no augmentation.
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
        model.vision_backbone = _Given()

    def of(self, rows: Tensor) -> Tensor:
        """Return float32 [B, Lv, D'] of some frames."""
        return self._features[rows].float()
