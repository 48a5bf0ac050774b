"""Demonstrations from the scripted expert, and DAgger, in LIBERO."""
