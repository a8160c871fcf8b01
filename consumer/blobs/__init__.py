"""Blobs: where each is read from, how it is copied, prefetch, throttling, and the relay between agents."""
