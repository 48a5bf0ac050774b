"""What can go wrong in an export."""

from lightvla_ros.errors import LightVLAError


class ExportError(LightVLAError):
    """An export that cannot be made as asked; one line: the part or option, and what to try."""
