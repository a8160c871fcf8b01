"""The log: one port (`port`), two engines (`sqlite`, `kafka`), and tables over compacted topics (`table`)."""
