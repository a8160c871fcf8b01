"""Does an image run on what a rule names? Pure. A variant counts only where the rule names one."""

import difflib
from collections.abc import Iterable

from schemas.platforms import Platform

# GOOS and GOARCH of images that exist: a word beside them is a mistake, and its rule would match nothing in silence.
_SYSTEMS = ("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "aix", "wasip1")
_ARCHITECTURES = (
    "amd64", "arm64", "arm", "386", "ppc64le", "ppc64", "s390x", "riscv64", "loong64",
    "mips64le", "mips64", "mipsle", "mips", "wasm",
)  # fmt: skip
_ALIASES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "x64": "amd64",
    "aarch64": "arm64",
    "x86": "386",
    "i386": "386",
}
_USUAL = {"amd64": "v1", "arm64": "v8", "arm": "v7"}  # what an architecture without a variant means


def covers(wanted: Iterable[Platform], found: Platform | None) -> bool:
    """True when `found` is one of `wanted`; what runs on nothing in particular never is."""
    return found is not None and any(_is_one(found, one) for one in wanted)


def mistake(platform: Platform) -> str | None:
    """Why no image can ever be of this platform, or None."""
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
    usual = _USUAL.get(found.architecture)
    return wanted.variant is None or wanted.variant == (found.variant or usual)
