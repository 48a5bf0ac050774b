"""What can be wrong with demonstrations."""

from __future__ import annotations

from lightvla_ros.errors import LightVLAError


class DemonstrationError(LightVLAError):
    """Demonstrations that cannot be used; one line names the file, the episode and the fix."""
