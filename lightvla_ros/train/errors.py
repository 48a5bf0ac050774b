"""What can go wrong in training, besides a wrong configuration."""


class TrainError(Exception):
    """A run that cannot start or go on; one line: the thing, the fault, and what to do."""
