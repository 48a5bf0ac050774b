"""Demonstrations from the scripted expert in LIBERO.

- ``collect``: demonstrations of the memoryless expert, pushed about on its way (DART)
- ``dagger``: a policy drives, and the expert says what it would have done (DAgger)
- ``recorder``: pushes on executed actions, and the rows that are recorded
"""
