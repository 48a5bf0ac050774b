"""Recordings of the policy node, run through a policy again.

- ``recorded``: each inference of a recording, with the observation that the policy was given
- ``regression_test``: a folder with a few of them, which pytest runs
- ``replay``: the policy's answers now and then, compared
"""
