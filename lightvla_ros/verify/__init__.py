"""An engine against its reference.

- ``prompts``: whether different instructions tell the policy different things
- ``tolerances``: how far an engine is from its reference, and how far it may be
- ``variants``: which engines, and in which numbers, a folder is verified with
- ``verify``: ``lightvla verify``
"""
