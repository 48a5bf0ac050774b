"""What can go wrong with weights on disk."""


class CheckpointError(Exception):
    """A checkpoint that cannot be trusted; one line: the file, the fault, and what to do."""
