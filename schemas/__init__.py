"""What crosses a border: between regions, between processes, between versions.

Read in this order: names, envelope, events (what happened), declared, topology, rules, webhooks, state
(what is declared), completions (how tasks end), dead_letters, topics (where each record goes), codec.
"""
