"""Check that a server listens at HOST:PORT. Imports nothing heavy."""

import socket

from mue_check.errors import ClusterError

_SECONDS = 5.0


def require_listener(address: str) -> None:
    """Raise ClusterError if no server listens at ``address``. Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"nothing answers there ({error.strerror or error})") from None
