"""The records that processes, regions and versions exchange, and what operators declare.

Read in this order: names, envelope, events (what happened), declared, topology, rules, webhooks, state
(what is declared), completions (how tasks end), dead_letters, topics (where each record goes), codec.
"""
