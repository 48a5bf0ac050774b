"""LIBERO's suites. No imports: the command line knows them without the simulator."""

# As LIBERO's benchmark has them; a test compares. Each task has as many saved initial states.
TASKS = {
    'libero_spatial': 10,
    'libero_object': 10,
    'libero_goal': 10,
    'libero_10': 10,
    'libero_90': 90,
}
INIT_STATES = 50

# Steps per episode by suite, as in OpenVLA-OFT's run_libero_eval.py
MAX_STEPS = {
    'libero_spatial': 220,
    'libero_object': 280,
    'libero_goal': 300,
    'libero_10': 520,
    'libero_90': 400,
}
