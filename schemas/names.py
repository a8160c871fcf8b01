"""Names that processes exchange, parsed once and valid from then on.

Each is a `str` whose constructor refuses invalid text, so that a function with a `Digest` need not check it again.
The grammars are those of the OCI Distribution and Image specifications (full match, ASCII only), with bounded lengths.
"""

import re
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Name(str):
    """A string that matches its class's pattern.

    Raises:
        ValueError: It does not match, or is too long.
    """

    __slots__ = ()
    what: ClassVar[str] = "name"
    pattern: ClassVar[re.Pattern[str]] = re.compile(r".+")
    longest: ClassVar[int] = 255

    def __new__(cls, value: str) -> Self:
        if type(value) is cls:
            return value
        if len(value) > cls.longest or not cls.pattern.fullmatch(value):
            raise ValueError(f"{value[:80]!r} is not a {cls.what}")
        return super().__new__(cls, value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema(strict=True))


_WORD = r"[a-z0-9]+(?:[._-][a-z0-9]+)*"


class Region(Name):
    """The name of a region. It is part of topic names, so lower case and short."""

    __slots__ = ()
    what = "region name (lower-case letters, digits and inner '.', '_', '-'; 63 at most)"
    pattern = re.compile(_WORD, re.ASCII)
    longest = 63


class Account(Name):
    """The name of a tenant, which owns instances."""

    __slots__ = ()
    what = "account name (lower-case letters, digits and inner '.', '_', '-'; 63 at most)"
    pattern = re.compile(_WORD, re.ASCII)
    longest = 63


class PlaceName(Name):
    """The name of a place: `instance`, or `instance@region` for a replica."""

    __slots__ = ()
    what = "place (an instance, or instance@region)"
    pattern = re.compile(rf"{_WORD}(?:@{_WORD})?", re.ASCII)
    longest = 127


class ObjectName(PlaceName):
    """The name of a declared thing: an instance (which is a place too), a rule, a webhook, a secret."""

    __slots__ = ()
    what = "name (lower-case letters, digits and inner '.', '_', '-'; 63 at most)"
    pattern = re.compile(_WORD, re.ASCII)
    longest = 63


class GrantName(Name):
    """The name of a grant: the account that receives, and the account that it receives from."""

    __slots__ = ()
    what = "grant name (ACCOUNT:FROM)"
    pattern = re.compile(rf"{_WORD}:{_WORD}", re.ASCII)
    longest = 127


class SecretName(Name):
    """The name of a secret, whose value is never on the log."""

    __slots__ = ()
    what = "secret name (letters, digits, '_' and '-'; 63 at most)"
    pattern = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)
    longest = 63


class Repository(Name):
    """An OCI repository name, such as `team/app`."""

    __slots__ = ()
    what = "repository name"
    pattern = re.compile(
        r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII
    )


class Tag(Name):
    """An OCI tag, the only mutable name in a registry."""

    __slots__ = ()
    what = "tag"
    pattern = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
    longest = 128


class Digest(Name):
    """An OCI digest: sha256 or sha512 in lower-case hex."""

    __slots__ = ()
    what = "digest (sha256:<64 hex> or sha512:<128 hex>)"
    pattern = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", re.ASCII)

    @property
    def algorithm(self) -> str:
        """Returns `sha256` or `sha512`."""
        return self.partition(":")[0]


class MediaType(Name):
    """A media type without parameters, such as `application/vnd.oci.image.manifest.v1+json`."""

    __slots__ = ()
    what = "media type"
    pattern = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*", re.ASCII)


Reference = Tag | Digest


def reference(text: str) -> Reference:
    """Returns the text as a digest when it has a colon, else as a tag.

    Raises:
        ValueError: It is neither.
    """
    return Digest(text) if ":" in text else Tag(text)
