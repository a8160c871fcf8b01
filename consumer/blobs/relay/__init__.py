"""The relay: agents send blobs on to each other while they still come in, so that a push leaves its source region once.

    peers     which regions are awake, and where their relays are, by heartbeats
    tree      who sends to whom, derived alike by all   (pure)
    client    asking another agent for a blob
    serve     answering such a question, over HTTP
    incoming  what is on its way to this agent, and may be followed
    tee       one blob while it comes in, shown to its followers
    waits     who is passed over for a while, and how long one image waits   (pure)

Nobody here believes a byte: `consumer.sources` joins what comes from several, and verifies the whole.
"""
