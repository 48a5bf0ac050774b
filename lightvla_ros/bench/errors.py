"""What can be wrong with a request to measure."""


class BenchError(Exception):
    """A measurement that cannot be made as asked; one line: the option, and what to try."""
