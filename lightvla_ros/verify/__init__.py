"""Compares engines with their reference.

- ``prompts``: checks that different instructions become different prompts
- ``tolerances``: differences between an engine and its reference, and their limits
- ``variants``: which engines a folder is verified with, and in which precisions
- ``verify``: ``lightvla verify``
"""
