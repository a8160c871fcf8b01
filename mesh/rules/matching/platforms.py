"""Platform filters: whether an image runs on a platform that a rule names. A variant counts only where it is named.

Source: `platform` of the OCI image index, whose `os` and `architecture` are Go's GOOS and GOARCH.
"""

import difflib
from collections.abc import Iterable

from schemas.platforms import Platform

# Systems and architectures of images that exist: any other is a mistake, and its rule would silently match nothing.
_SYSTEMS = ("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "aix", "wasip1")
_ARCHITECTURES = (
    "amd64", "arm64", "arm", "386", "ppc64le", "ppc64", "s390x", "riscv64", "loong64",
    "mips64le", "mips64", "mipsle", "mips", "wasm",
)  # fmt: skip
_ALIASES = {
    "x86_64": "amd64", "x86-64": "amd64", "x64": "amd64", "aarch64": "arm64", "x86": "386", "i386": "386",
}  # fmt: skip
_DEFAULT_VARIANTS = {"amd64": "v1", "arm64": "v8", "arm": "v7"}


def covers(wanted: Iterable[Platform], found: Platform | None) -> bool:
    """Checks whether `found` is one of `wanted`; an artifact without a platform never is."""
    return found is not None and any(_is_one(found, one) for one in wanted)


def mistake(platform: Platform) -> str | None:
    """Returns why no image can be of this platform, with a suggestion; None when there are such images."""
    for part, known, what in (
        (platform.os, _SYSTEMS, "operating system"),
        (platform.architecture, _ARCHITECTURES, "architecture"),
    ):
        if part not in known:
            close = [_ALIASES[part]] if part in _ALIASES else difflib.get_close_matches(part, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
            return f"{str(platform)!r}: no image has the {what} {part!r}{hint}"
    return None


def _is_one(found: Platform, wanted: Platform) -> bool:
    if (found.os, found.architecture) != (wanted.os, wanted.architecture):
        return False
    default = _DEFAULT_VARIANTS.get(found.architecture)
    return wanted.variant is None or wanted.variant == (found.variant or default)
