"""``lightvla bench engine``: what engines take for a chunk, pruned and not."""
