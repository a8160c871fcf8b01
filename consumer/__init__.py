"""The consumer: an agent of one region turns events into copies.

    consume -> match (name, tag) -> lanes -> worker -> attempts -> replicate:
        survey -> select (resource) -> plan -> copy_blobs -> copy_manifest -> referrers
    -> complete -> offsets -> commit

    blob events -> match -> prefetch: layers that are copied before their manifest is pushed

`replicate` is the job on one page, `agent` composes it all, `task` holds the values that go from step to step,
`progress` what is counted on the way. Steps do not know each other. `match`, `select`, `plan` and `offsets` are pure.
`begun` and `heartbeat` read and write `mesh.<region>.status`; `places` keeps the registries. `referrers` is a page of
its own: what is about an image goes through the same steps. `subjects` remembers what is about what. `delete` is the
page of a deletion, and `gone` says when a copy becomes one.

`transfers` composes what transfers blobs: `copy_blobs`, the `blob_source` that they are read from, the `relay` between
agents, and `prefetch`.
"""
