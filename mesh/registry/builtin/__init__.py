"""A small registry for `regmesh demo` and tests. `registry` is its front, `faults` makes it misbehave for tests."""

from mesh.registry.builtin.registry import BuiltinRegistry, Credentials

__all__ = ["BuiltinRegistry", "Credentials"]
