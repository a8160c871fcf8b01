"""The state of agents, replicas and dead letters, and the diagnosis that `doctor` shows."""
