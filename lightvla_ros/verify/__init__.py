"""Compares engines with their reference.

- ``prompts``: checks that different instructions become different prompts
- ``variants``: which engines a folder is verified with, and in which precisions
- ``verify``: ``lightvla verify``
"""
