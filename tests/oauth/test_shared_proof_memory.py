"""Several processes can know one another's proofs: the port is enough for a memory that they share.

The memory here is a table in a file, as a database would be behind the port; each process has a verifier of its own.
"""

import asyncio
import json
import multiprocessing
import sqlite3
import time
from pathlib import Path
from typing import Any

from sidecar.errors import TokenRejected
from sidecar.faults import TokenFault
from sidecar.model import AuthScheme, Credential, UnverifiedToken
from sidecar.oauth import Binding, FileKeySet, JwtVerifier
from sidecar.ports import ProofMemory
from sidecar.system import SystemClock
from tests.oauth.proofs import CLIENT, proof, thumbprint
from tests.oauth.test_jwt_verification import RESOURCE, RSA_KEY, issuer, jwk
from tests.oauth.test_jwt_verification import token as access_token
from tests.patience import HANG_S

PROCESSES = 4
PROOFS = 25


class SharedProofs:
    """Implements the port on a table: who inserts first is first."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def is_first(self, proof: bytes, key: str, until: float) -> bool:
        return await asyncio.to_thread(self._insert, proof, key, until)

    def _insert(self, *row: object) -> bool:
        with sqlite3.connect(self._path, timeout=HANG_S) as table:
            return table.execute("INSERT OR IGNORE INTO proofs VALUES (?, ?, ?)", row).rowcount == 1


def accepted(folder: str, credentials: list[tuple[str, str]], start: Any) -> list[int]:
    """Present each credential once in a process of its own, and return which were accepted."""

    async def all_of_them() -> list[int]:
        memory: ProofMemory = SharedProofs(f"{folder}/proofs")
        clock = SystemClock()
        trusted = issuer(dpop=Binding.ALLOWED, keys=FileKeySet(Path(folder, "jwks.json"), clock))
        checker = JwtVerifier([trusted], clock, proofs=memory)
        found = []
        start.wait(HANG_S)
        for number, (token, shown) in enumerate(credentials):
            presented = Credential(
                scheme=AuthScheme.DPOP, token=UnverifiedToken(token), proof=shown, method="POST", uri=RESOURCE
            )
            try:
                await checker.verify(presented)
            except TokenRejected as refused:
                if refused.fault != TokenFault.PROOF_REPLAYED:
                    raise
            else:
                found.append(number)
        return found

    return asyncio.run(all_of_them())


def test_a_proof_counts_once_among_processes_that_share_a_memory(tmp_path: Path) -> None:
    now = int(time.time())
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk(RSA_KEY, kid="rsa")]}))
    with sqlite3.connect(tmp_path / "proofs") as table:
        table.execute("CREATE TABLE proofs (proof BLOB PRIMARY KEY, key TEXT, until REAL)")
    token = access_token({"cnf": {"jkt": thumbprint(CLIENT)}, "iat": now, "exp": now + 600})
    credentials = [(str(token), proof(token, jti=str(number), iat=now)) for number in range(PROOFS)]
    spawning = multiprocessing.get_context("spawn")
    with spawning.Manager() as manager, spawning.Pool(PROCESSES) as pool:
        start = manager.Barrier(PROCESSES)
        each = pool.starmap(accepted, [(str(tmp_path), credentials, start)] * PROCESSES, chunksize=1)
    assert sorted(number for one in each for number in one) == [*range(PROOFS)]
