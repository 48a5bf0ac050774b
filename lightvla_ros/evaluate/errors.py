"""What an evaluation refuses."""

from lightvla_ros.errors import LightVLAError


class EvaluationError(LightVLAError):
    """An evaluation that cannot be done as asked. One line: what is wrong, and what to do."""
