"""Files that hold a key which the cryptography library does not know: no key of checkpoints, and no defect either."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.audit import BadKey, CheckpointSigner, CheckpointVerifier
from sidecar.errors import ConfigurationError
from sidecar.store.checkpoints import SigningKeyFile
from tests import unknown_curve


def test_a_key_of_an_unknown_curve_is_no_key() -> None:
    with pytest.raises(BadKey):
        CheckpointSigner(unknown_curve.private_key())
    with pytest.raises(BadKey):
        CheckpointVerifier(unknown_curve.public_key())


def test_a_file_with_one_is_refused_at_the_start_and_changes_nothing_later(tmp_path: Path) -> None:
    file, unknown = tmp_path / "key.pem", unknown_curve.private_key()
    file.write_bytes(unknown)
    with pytest.raises(ConfigurationError, match=r"audit\.signing_key_file"):
        SigningKeyFile(file)
    first, second = (
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for _ in range(2)
    )
    file.write_bytes(first)
    followed = SigningKeyFile(file)
    for content, used in ((unknown, first), (second, second)):
        file.write_bytes(content)
        followed.refresh()
        assert followed.value == used
