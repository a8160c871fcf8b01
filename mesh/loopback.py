"""Recognising this machine: the intake and the API accept some requests only from it."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from aiohttp import web

# Proxies add these: behind one, a loopback peer says nothing about the sender.
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


@lru_cache(maxsize=1024)  # peers are few, and their addresses stay the same
def is_loopback(host: str) -> bool:
    """Returns whether a host is `localhost` or a loopback address; it may have a zone, or be IPv4 mapped into IPv6."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def reachable_here(url: str) -> str:
    """Returns the URL of a listener as this machine reaches it: one on all addresses by loopback."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def is_local(request: web.Request) -> bool:
    """Returns whether a request comes from this machine itself: over loopback, and not through a proxy."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if not isinstance(peer, tuple) or any(header in request.headers for header in _FORWARDED):
        return False
    return is_loopback(str(peer[0]))
