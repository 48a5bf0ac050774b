"""What can be wrong with demonstrations."""

from __future__ import annotations

from lightvla_ros.errors import LightVLAError


class DemonstrationError(LightVLAError):
    """Demonstrations that cannot be used; one line names the file, the episode and the fix."""


class DamagedFileError(DemonstrationError):
    """A file that cannot be read at all, or not to its end; others can be read without it.

    :param place: The file, or its episode.
    """

    def __init__(self, place: object, reason: str) -> None:
        super().__init__(str(place), reason)

    def __str__(self) -> str:
        place, reason = self.args
        return (
            f'{place}: cannot be read as HDF5 ({reason}); remove it, or download or record it again'
        )
