"""Accesses the key-value store of Horovod's launchers.

It is an HTTP server that a job's processes find through their environment. Standard library only.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from http.client import OK, HTTPConnection, HTTPException

ADDRESS, PORT = "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"
_SCOPE = "convoy"  # Horovod's own scopes have other names


class Store:
    """Stores texts that all processes of a job can read.

    Args:
        environment: gives the server's address, read at each request.
        seconds: time limit for an answer.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ, seconds: float = 30.0) -> None:
        self._environment, self._seconds = environment, seconds

    def put(self, key: str, text: str) -> None:
        """Stores a text. Raises OSError if the server does not answer."""
        self._request("PUT", f"/{_SCOPE}/{key}", text, self._seconds)

    def get(self, key: str) -> str | None:
        """Returns the text, or None if there is none.

        Raises OSError if the server does not answer.
        """
        return self._request("GET", f"/{_SCOPE}/{key}", None, self._seconds)

    def await_place(self, host: str) -> str | None:
        """Waits without limit for horovodrun's answer to an elastic process that asks for a place.

        Raises:
            OSError: horovodrun is gone.
        """
        return self._request("GET", f"/rank_and_size/{host}", None, None)

    def _request(
        self, method: str, path: str, body: str | None, seconds: float | None
    ) -> str | None:
        address, port = self._environment[ADDRESS], int(self._environment[PORT])
        with closing(HTTPConnection(address, port, timeout=seconds)) as connection:
            try:
                connection.request(method, path, body.encode() if body else None)
                answer = connection.getresponse()
                return answer.read().decode() if answer.status == OK else None
            except HTTPException as error:
                raise OSError(f"{address}:{port}: {error!r}") from error
