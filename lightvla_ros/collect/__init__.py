"""Demonstrations from the scripted expert in LIBERO, and observations of a policy.

- ``collect``: demonstrations of the memoryless expert, disturbed by pushes (DART)
- ``dagger``: a policy drives, and the expert labels the visited states (DAgger)
- ``observe``: a policy alone drives, and what it sees is stored
- ``recorder``: pushes that disturb executed actions, and the recorder of an episode
"""
