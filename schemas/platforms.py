"""What an image runs on, in the words of the OCI image specification, which are Go's."""

import re

from schemas.names import Name


class Platform(Name):
    """`os/architecture`, or `os/architecture/variant`."""

    __slots__ = ()
    what = "platform (os/architecture or os/architecture/variant in lower case, such as linux/arm64)"
    pattern = re.compile(r"[a-z0-9_]+/[a-z0-9_]+(?:/[a-z0-9][a-z0-9._-]*)?", re.ASCII)
    longest = 63

    @property
    def os(self) -> str:
        return self.split("/")[0]

    @property
    def architecture(self) -> str:
        return self.split("/")[1]

    @property
    def variant(self) -> str | None:
        return self.split("/")[2] if self.count("/") == 2 else None
