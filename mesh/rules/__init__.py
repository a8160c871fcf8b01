"""Pure decisions on declared state: no I/O, no clock, no logging."""
