"""Executions: commands, their records, retries, schedules, and the pruning of orphaned tags."""
