"""What can be wrong with demonstrations."""

from __future__ import annotations


class DemonstrationError(Exception):
    """Demonstrations that cannot be used; one line names the file, the episode and the fix."""
