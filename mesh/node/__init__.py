"""The node: the command line and the composition roots.

Only here are log engines and registry clients chosen, and only here are all roles known.
"""

INTERRUPTED = 130  # the exit code of shells for a process that Ctrl-C ended
