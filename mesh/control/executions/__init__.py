"""Executions: commands, their records, retries, schedules, parked tasks, and the deletion of orphaned tags."""
