"""LIBERO's suites. No imports: the command line knows them without the simulator."""

# Steps per episode by suite, as in OpenVLA-OFT's run_libero_eval.py
MAX_STEPS = {
    'libero_spatial': 220,
    'libero_object': 280,
    'libero_goal': 300,
    'libero_10': 520,
    'libero_90': 400,
}
