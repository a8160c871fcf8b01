"""Webhooks: which deliveries there are, what is sent, how it is signed, and when it is retried."""
