"""What can go wrong in an export."""


class ExportError(Exception):
    """An export that cannot be made as asked; one line: the part or option, and what to try."""
