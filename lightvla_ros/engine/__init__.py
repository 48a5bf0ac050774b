"""Engines: what runs a policy's two graphs. ``load_engine`` picks one by name."""
