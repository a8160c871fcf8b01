"""The node: the command line and the composition roots.

Only here are engines and clients chosen, and every role known.
"""
