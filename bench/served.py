"""One tree's sidecar as its own tests deploy it, until standard input ends; a side of ``bench/against.py``.

    python bench/served.py TREE MONGODB_URI MEMO_MS [UPSTREAM_URL]

Everything comes from TREE: its code, its policies, its way to write the settings. So two revisions can be served that
differ in all of these. With UPSTREAM_URL both servers are there. Prints one line of JSON: the URL, tokens, the process
id of the sidecar.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

TREE, URI, MEMO_MS, *UPSTREAM = sys.argv[1:]
sys.path.insert(0, TREE)

from sidecar.demo.identities import ANALYST, LOADER  # noqa: E402
from tests.integration.deployment import deployed  # noqa: E402

IDENTITIES = 50

if __name__ == "__main__":
    more = {"SIDECAR_OPA__MEMO_MS": MEMO_MS, "SIDECAR_OPA__TIMEOUT_MS": "500"}  # the default, which tests do not have
    urls = {"demo-ro": UPSTREAM[0], "demo-rw": UPSTREAM[0]} if UPSTREAM else None
    with (
        tempfile.TemporaryDirectory() as folder,
        deployed(Path(folder), URI, record=False, environment=more, urls=urls) as deployment,
    ):
        assert deployment.process is not None
        analysts = [replace(ANALYST, user=f"analyst-{number}") for number in range(IDENTITIES)]
        side = {
            "url": deployment.url,
            "token": deployment.token(ANALYST),
            "tokens": [deployment.token(one) for one in analysts],
            "loader": deployment.token(LOADER),
            "pid": deployment.process.pid,
        }
        print(json.dumps(side), flush=True)
        sys.stdin.read()
