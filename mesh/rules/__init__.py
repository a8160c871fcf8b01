"""Decisions on declared state: no I/O, no clock, no logging."""
