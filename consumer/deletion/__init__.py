"""Deletions at a destination: announced ones, orphaned tags of replicas, and copies whose tag was deleted."""
