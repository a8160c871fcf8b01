"""Parses addresses and URLs of servers. Every command imports this module, so it imports little."""

from yarl import URL

from mesh.errors import InvalidInput


def is_http_url(text: str) -> bool:
    """Checks whether the text is an HTTP or HTTPS URL with a host."""
    try:
        url = URL(text)
        return url.scheme in ("http", "https") and bool(url.host)
    except ValueError:
        return False


def parse_address(listen: str) -> tuple[str, int]:
    """Returns host and port of `HOST:PORT` or `[V6]:PORT`.

    Raises:
        InvalidInput: The text has another form.
    """
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidInput(
            f"{listen!r} is not an address to listen on: use HOST:PORT, such as 127.0.0.1:8080"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)
