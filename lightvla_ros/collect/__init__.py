"""Demonstrations from the scripted expert in LIBERO.

- ``collect``: demonstrations of the memoryless expert, disturbed by pushes (DART)
- ``dagger``: a policy drives, and the expert labels the visited states (DAgger)
- ``recorder``: pushes that disturb executed actions, and the recorder of an episode
"""
