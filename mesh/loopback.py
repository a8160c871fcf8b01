"""Recognising loopback hosts: the intake and the API accept some requests only from this machine."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address


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
