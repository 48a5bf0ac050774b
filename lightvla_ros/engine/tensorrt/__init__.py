"""TensorRT: plans, their memory, what machine they belong to, and the engine that runs them."""
