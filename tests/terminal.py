"""A terminal for tests, without a person before it."""

import os
import pty
import threading


class Terminal:
    """A pseudo-terminal: what is written to its file descriptor `device` is read meanwhile."""

    def __init__(self):
        self._reading, self.device = pty.openpty()
        self._pieces = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        try:
            while piece := os.read(self._reading, 4096):
                self._pieces.append(piece)
        except OSError:  # Linux says so when nobody holds the other side any more
            pass

    def shown(self):
        """Returns all that was written. `device` must be closed in every process."""
        self._reader.join()
        os.close(self._reading)
        return b"".join(self._pieces).decode()
