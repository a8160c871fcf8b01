"""The node: the command line and the composition roots.

Only here are engines and clients chosen, and every role known.
"""

INTERRUPTED = 130  # the exit code, as a shell tells of what Ctrl-C ended
