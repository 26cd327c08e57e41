"""One tree's sidecar as its own tests deploy it, until standard input ends; a side of ``bench/against.py``.

    python bench/served.py TREE MONGODB_URI MEMO_MS

Everything comes from TREE: its code, its policies, its way to write the settings. So two revisions can be served that
differ in all of these. Prints one line of JSON: the URL, a token, the process id of the sidecar.
"""

import json
import sys
import tempfile
from pathlib import Path

TREE, URI, MEMO_MS = sys.argv[1:]
sys.path.insert(0, TREE)

from sidecar.demo.identities import ANALYST  # noqa: E402
from tests.integration.deployment import deployed  # noqa: E402

if __name__ == "__main__":
    more = {"SIDECAR_OPA__MEMO_MS": MEMO_MS}
    with (
        tempfile.TemporaryDirectory() as folder,
        deployed(Path(folder), URI, record=False, environment=more) as deployment,
    ):
        assert deployment.process is not None
        side = {"url": deployment.url, "token": deployment.token(ANALYST), "pid": deployment.process.pid}
        print(json.dumps(side), flush=True)
        sys.stdin.read()
