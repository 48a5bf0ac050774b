"""What a policy looks at: which visual tokens it keeps, as pictures and figures.

- ``concentration``: what share of the kept tokens lies on what the task is about
- ``dimming``: pruned patches dimmed
- ``pictures``: key frames, and an animated GIF
- ``plots``: kept tokens over an episode, and what they lay on
- ``video``: videos of episodes
- ``watch``: runs an episode and keeps what the policy saw and kept
- ``write``: an episode's files
"""
