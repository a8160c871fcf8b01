"""A small registry of our own, for `regmesh demo` and tests. `registry` is its front, `faults` how it misbehaves."""

from mesh.registry.builtin.registry import BuiltinRegistry, Credentials

__all__ = ["BuiltinRegistry", "Credentials"]
