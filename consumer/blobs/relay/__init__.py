"""The relay: agents forward blobs to each other while they receive them, so that a push leaves its source region once.

    peers     the live regions and their relays' addresses, from heartbeats
    tree      which region sends to which, derived identically by every agent   (pure)
    parents   the relays that send a blob to this region
    access    how one agent takes part: its address, its keys, the memory of what it sends on
    signing   the keys of pairs of regions, and the signatures of requests   (pure)
    client    requests a blob from another agent
    serve     answers such requests over HTTP
    incoming  blobs that this agent expects or receives
    tee       one blob while it is received, for its followers
    waits     how long one image waits for a relay   (pure)

Relayed bytes are not trusted: `consumer.blobs.blob_source` verifies each blob as a whole.
"""
