"""Decides which network addresses may be connected to for an address that somebody typed.

A website's name may lead anywhere: to this machine, to the neighbours of the worker, to a cloud's metadata. So the
name is resolved here, every address it has is judged, and the caller connects to one that was judged, not to the
name again: an answer that changes between check and use (rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeAlias

import httpx

from shared.enrichment import Failed, Retry
from shared.thread import in_own_thread

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

PORTS = frozenset({80, 443, 8080, 8443})
"""Where websites are; any port within a network that is allowed by name."""
RESOLVE_TIMEOUT_S = 5.0
ADDRESSES_MAX = 2
"""How many addresses of one name are tried."""
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
NEVER: tuple[Network, ...] = (
    ipaddress.IPv4Network("168.63.129.16/32"),  # a public address, behind which Azure keeps the metadata of a machine
    ipaddress.IPv4Network("192.0.0.0/24"),  # for protocols; Oracle's metadata are in it
    ipaddress.IPv6Network("3fff::/20"),  # for documentation
    ipaddress.IPv6Network("5f00::/16"),  # for routing within a network
    ipaddress.IPv6Network("fec0::/10"),  # the private addresses of old
)
"""What is not public, or reaches inside, though some versions of Python take it for public."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks from comma-separated CIDRs; none from an empty text. Raises `ValueError` for what is no network."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


async def resolve(url: httpx.URL, *, allowed: Sequence[Network]) -> list[Address]:
    """Addresses to connect to for this URL, IPv4 first, `ADDRESSES_MAX` at most.

    Args:
        url: where somebody, or a redirect, wants us to go.
        allowed: networks that may be read although they are not public.

    Raises:
        Failed: no scheme, name, port or address of a public website.
        Retry: the name could not be resolved at the moment.
    """
    host = url.raw_host.decode("ascii")
    if url.scheme not in ("http", "https") or not host:
        raise Failed(f"Only http and https websites are read, not {str(url)[:200]!r}")
    port = url.port or (443 if url.scheme == "https" else 80)
    addresses = await _addresses(host, port)
    for address in addresses:
        if _within(address, allowed):
            continue
        if not is_public(address):
            raise Failed(f"{host} is at an address inside a private network, which is not read")
        if port not in PORTS:
            raise Failed(f"Port {port} of {host} is not one where websites are read")
    return sorted(addresses, key=lambda address: address.version)[:ADDRESSES_MAX]


def is_public(address: Address) -> bool:
    """True when the address, and whatever IPv4 address it wraps, belongs to the public internet."""
    return all(
        part.is_global and not (part.is_multicast or part.is_reserved or _within(part, NEVER))
        for part in _unwrapped(address)
    )


def _unwrapped(address: Address) -> Iterator[Address]:
    """The address, or the IPv4 addresses that an IPv6 one is translated or tunnelled to."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
    elif address in NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    elif address.ipv4_mapped:
        yield address.ipv4_mapped
    else:
        yield address
        if address.sixtofour:
            yield address.sixtofour
        yield from address.teredo or ()


def _within(address: Address, networks: Sequence[Network]) -> bool:
    plain = address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
    return any(plain in network for network in networks)


async def _addresses(host: str, port: int) -> list[Address]:
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        # A look-up outlives its time, until the resolver gives up: a few names of slow servers filled a pool for all.
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await in_own_thread(ask, name=f"look-up of {host}")
    except (TimeoutError, socket.gaierror) as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
            raise Failed(f"There is no website {host}: the name does not exist") from error
        raise Retry(f"The name {host} could not be resolved") from error
    except UnicodeError as error:
        raise Failed(f"{host[:200]!r} is no name of a website") from error
    return [ipaddress.ip_address(entry[4][0]) for entry in found]
