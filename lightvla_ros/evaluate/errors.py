"""What an evaluation refuses."""


class EvaluationError(Exception):
    """An evaluation that cannot be done as asked. One line: what is wrong, and what to do."""
