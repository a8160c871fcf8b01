"""Webhooks: which deliveries are due, how they are signed, and how they are sent."""
