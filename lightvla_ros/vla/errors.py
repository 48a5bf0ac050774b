"""What can go wrong with weights on disk."""

from lightvla_ros.errors import LightVLAError


class CheckpointError(LightVLAError):
    """A checkpoint that cannot be trusted; one line: the file, the fault, and what to do."""
