"""LightVLA on ROS 2: a vision-language-action policy that prunes its own visual tokens.

What stands in ``__all__`` is for other programs and stays; every module below may move.

>>> with Policy.load('models/libero_tiny') as policy:
...     chunk = policy.act(Observation.example(policy.manifest))
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightvla_ros.contract import Manifest, load_manifest
    from lightvla_ros.errors import LightVLAError
    from lightvla_ros.policy.actions import Chunk
    from lightvla_ros.policy.observation import Observation
    from lightvla_ros.policy.policy import Policy, Prediction
    from lightvla_ros.policy.state import RobotState

__all__ = [
    'Chunk',
    'LightVLAError',
    'Manifest',
    'Observation',
    'Policy',
    'Prediction',
    'RobotState',
    'load_manifest',
]
__version__ = '0.1.0'

# The generated messages (lightvla_ros.msg) are installed elsewhere than the sources. Python started
# in the repository, or an editable install, finds the sources first; this adds the other half.
__path__ = extend_path(__path__, __name__)

# Loaded when they are asked for: whoever wants a message or the version needs neither an engine nor
# NumPy.
_MODULES = {
    'Chunk': 'policy.actions',
    'LightVLAError': 'errors',
    'Manifest': 'contract',
    'Observation': 'policy.observation',
    'Policy': 'policy.policy',
    'Prediction': 'policy.policy',
    'RobotState': 'policy.state',
    'load_manifest': 'contract',
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)
