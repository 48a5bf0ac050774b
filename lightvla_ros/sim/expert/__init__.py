"""sim/expert."""
