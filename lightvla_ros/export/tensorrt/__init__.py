"""export/tensorrt."""
