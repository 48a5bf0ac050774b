"""An engine that can be told to fail, hang or be slow."""

import threading
import time

import numpy as np

from lightvla_ros.engine.base import Encoded
from lightvla_ros.errors import EngineError


class FakeEngine:
    backend = 'fake'
    precision = 'fp32'
    fingerprint = '0' * 64

    def __init__(self):
        self.mode = 'ok'  # ok, raise, nan, inf, shape, long, far, hang
        self.delay = 0.0
        self.released = threading.Event()
        self.calls = 0
        self.seen = []  # prompt and proprio of each call
        self.closed = False

    def encode(self, pixels, prompt, proprio):
        assert np.isfinite(pixels).all()
        self.seen.append((prompt, proprio))
        return Encoded(kept=(2, 2), handle=None)

    def act(self, encoded, bucket):
        self.calls += 1
        time.sleep(self.delay)
        if self.mode == 'raise':
            raise EngineError('told to fail')
        if self.mode == 'hang':
            self.released.wait(30.0)
        actions = np.zeros((8, 7), np.float32)
        actions[:, 0] = 0.1
        if self.mode == 'nan':
            actions[3, 2] = np.nan
        if self.mode == 'inf':
            actions[0, 0] = np.inf
        if self.mode == 'shape':
            actions = actions[:-1]
        if self.mode == 'long':
            actions[2, 0] = 2.2  # 2.2 times LIBERO's longest step along x
        if self.mode == 'far':
            actions[2, 0] = 100.0
        return actions

    def kept_patches(self, encoded):
        return np.array([1, 5, 70, 90])

    def close(self):
        self.closed = True
