"""What can be wrong with a request to measure."""

from lightvla_ros.errors import LightVLAError


class BenchError(LightVLAError):
    """A measurement that cannot be made as asked; one line: the option, and what to try."""
