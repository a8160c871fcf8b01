"""The consumer: an agent of one region turns events into copies and deletions.

    events -> pipeline.consume -> match -> lanes -> task_runner:
        ownership lock, admission, attempts of one of
            image.replicate: survey -> choose, select -> plan -> blobs.copy_blobs -> copy_manifest -> referrers -> tag
            deletion.delete: announced deletions, orphaned tags (prune), copies whose tag was deleted (after_copy)
        then park, or complete -> offsets -> commit

    blob events -> pipeline.consume -> match -> blobs.prefetch: layers copied before their manifest

`agent` composes all of it from `ports` and `settings`. `task` and `progress` hold the values that travel through it,
`places` the registries. Folders import each other in one direction: pipeline, deletion, image, blobs. Steps do not
import each other. `match`, `offsets`, `select`, `plan`, `rate_limit` and `after_copy` are pure.
"""
