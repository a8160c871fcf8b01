"""The platform of an image: `os`, `architecture` and `variant` of the OCI image index, with Go's values."""

import re

from schemas.names import Name


class Platform(Name):
    """A platform, as `os/architecture` or `os/architecture/variant`."""

    __slots__ = ()
    what = "platform (os/architecture or os/architecture/variant in lower case, such as linux/arm64)"
    pattern = re.compile(r"[a-z0-9_]+/[a-z0-9_]+(?:/[a-z0-9][a-z0-9._-]*)?", re.ASCII)
    longest = 63

    @property
    def os(self) -> str:
        """Returns the operating system."""
        return self.split("/")[0]

    @property
    def architecture(self) -> str:
        """Returns the CPU architecture."""
        return self.split("/")[1]

    @property
    def variant(self) -> str | None:
        """Returns the variant of the architecture, if there is one."""
        return self.split("/")[2] if self.count("/") == 2 else None
