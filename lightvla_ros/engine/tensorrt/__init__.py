"""engine/tensorrt."""
