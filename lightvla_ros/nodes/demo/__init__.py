"""nodes/demo."""
