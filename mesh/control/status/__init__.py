"""The state of agents, places, replicas, parked tasks and dead letters, and the diagnosis that `doctor` shows."""
