"""What can go wrong in training, besides a wrong configuration."""

from lightvla_ros.errors import LightVLAError


class TrainError(LightVLAError):
    """A run that cannot start or go on; one line: the thing, the fault, and what to do."""
