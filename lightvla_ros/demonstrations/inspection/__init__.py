"""Looks at demonstrations before they are trained on.

- ``contact_sheet``: some pictures of some episodes on one sheet
- ``doubts``: signs of what ruins a training
- ``figures``: rates, ranges and statistics of episodes
- ``names``: what names a recording has, for its data YAML
- ``report``: what was found, as text and as a document
"""
