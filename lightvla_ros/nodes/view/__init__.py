"""The page that shows a policy node at work, served by the node while ``view`` is set.

- ``live_view``: the page of one policy node
- ``orders``: what the page's buttons do, through the topics and services that all have
- ``pictures``: the cameras' pictures, small
- ``server``: a small web server that only its own page may use
- ``snapshot``: what the page is told

The page itself is in the folder ``page``: HTML, style and script, with nothing to build.
"""
