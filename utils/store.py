"""The key-value store of Horovod's launchers, an HTTP server that a job's processes find in their
environment. Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from http.client import OK, HTTPConnection, HTTPException

ADDRESS, PORT = "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"
_SCOPE = "convoy"  # Horovod's own are called otherwise


class Store:
    """Texts that all processes of a job can read.

    Args:
        environment: says where the server is, when it is asked.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def put(self, key: str, text: str) -> None:
        """Raises OSError where the server does not answer."""
        self._request("PUT", _SCOPE, key, text)

    def get(self, key: str, scope: str = _SCOPE, timeout: float | None = 30) -> str | None:
        """The text; None if there is none. Raises OSError where the server does not answer."""
        return self._request("GET", scope, key, timeout=timeout)

    def _request(
        self, method: str, scope: str, key: str, body: str | None = None, timeout: float | None = 30
    ) -> str | None:
        address, port = self._environment[ADDRESS], int(self._environment[PORT])
        with closing(HTTPConnection(address, port, timeout=timeout)) as connection:
            try:
                connection.request(method, f"/{scope}/{key}", body.encode() if body else None)
                answer = connection.getresponse()
                return answer.read().decode() if answer.status == OK else None
            except HTTPException as error:
                raise OSError(f"{address}:{port}: {error!r}") from error
