"""Files of a public repository, downloaded once and believed only with their checksum."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx

from testyard.lab.children import LabError

PART_SUFFIX = ".part"
ATTEMPTS = 3


class DownloadError(LabError):
    """A file could not be downloaded, or is not the one that was expected."""


@dataclass(frozen=True)
class Download:
    """A file to have.

    Attributes:
        url: Where it comes from.
        target: Where it goes to. It is there whole or not at all: until then its bytes are beside it, in a file
            whose name ends in ``.part``, and a later download goes on behind them.
        sha256: Its checksum, in hexadecimal digits.
        size: How many bytes it has.
    """

    url: str
    target: Path
    sha256: str
    size: int

    @property
    def is_there(self) -> bool:
        """Whether the file is there; what is at its place was checked when it was put there."""
        return self.target.is_file() and self.target.stat().st_size == self.size

    def fetch(self, client: httpx.Client) -> None:
        """Download the file, unless it is there.

        Args:
            client: Makes the requests.

        Raises:
            DownloadError: Nobody answers, the answer is no file, or the file is another one; says which URL.
        """
        if self.is_there:
            return
        part = self.target.with_name(self.target.name + PART_SUFFIX)
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._complete(client, part)
            self._check(part)
            part.replace(self.target)
        except OSError as problem:
            message = f"{part} cannot be written: {problem.strerror}."
            raise DownloadError(message) from None

    def _complete(self, client: httpx.Client, part: Path) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._continue(client, part)
            except httpx.TransportError as problem:
                if attempt == ATTEMPTS:
                    reason = str(problem) or type(problem).__name__
                    message = f"{shown(self.url)} cannot be downloaded: {reason}."
                    raise DownloadError(message) from None
            else:
                return

    def _continue(self, client: httpx.Client, part: Path) -> None:
        """Get the bytes that are missing, all of them where the server cannot begin in the middle."""
        present = part.stat().st_size if part.exists() else 0
        if present == self.size:
            return
        if present > self.size:
            part.unlink()
            present = 0
        # The file as it is, so that its bytes can be counted.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={present}-"} if present else {})
        with client.stream("GET", self.url, headers=headers, follow_redirects=True) as response:
            if response.status_code not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
                message = f"{shown(self.url)} was answered with {response.status_code}, expected the file."
                raise DownloadError(message)
            with part.open("ab" if response.status_code == HTTPStatus.PARTIAL_CONTENT else "wb") as file:
                # Without a size of its own: what came before the connection broke is written too.
                for chunk in response.iter_raw():
                    file.write(chunk)

    def _check(self, part: Path) -> None:
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            size = part.stat().st_size
            part.unlink()
            message = (
                f"{shown(self.url)} is not the expected file: it has {size} bytes and the SHA-256 {found}, "
                f"expected {self.size} bytes and {self.sha256}. Nothing of it was kept."
            )
            raise DownloadError(message)


def shown(url: str) -> str:
    """A URL for people, without the name and the password in it."""
    parsed = httpx.URL(url)
    return str(parsed.copy_with(userinfo=b"")) if parsed.userinfo else url
