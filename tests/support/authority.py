"""An authority that issues certificates for tests, by the `openssl` program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path


class Authority:
    """Signs for a day."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        """Has its own files, and those of whom it signs, in a folder of that name."""
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl here")
        self._folder = folder / name
        self._folder.mkdir()
        self._own = self._files("ca")
        self.ca = self._own.certificate
        """Whom to trust."""
        files = ("-keyout", self._own.key, "-out", self.ca)
        _openssl("req", "-x509", *NEW_KEY, "-days", "1", "-subj", f"/CN={name}", *files)

    def issue(self, name: str, *, address: str = "IP:127.0.0.1") -> Issued:
        """A certificate of who is at `address`."""
        issued, request, extensions = self._files(name), self._folder / "request", self._folder / "extensions"
        extensions.write_text(f"subjectAltName={address}\n")
        _openssl("req", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", issued.key, "-out", request)
        signer = ("-CA", self.ca, "-CAkey", self._own.key, "-CAcreateserial", "-days", "1", "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, *signer, "-out", issued.certificate)
        return issued

    def locked(self, key: Path) -> Path:
        """The same key, with a password."""
        locked = self._folder / "locked.key"
        _openssl("ec", "-in", key, "-aes128", "-passout", "pass:secret", "-out", locked)
        return locked

    def _files(self, name: str) -> Issued:
        return Issued(self._folder / f"{name}.pem", self._folder / f"{name}.key")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
