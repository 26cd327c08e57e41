"""A browser for a client that is a process of its own, without a browser. Arguments: user, password, link.

Fills in the pages over HTTP and prints where the browser would have been sent.
"""

import asyncio
import sys

from sidecar.demo.log_in import fill_in

if __name__ == "__main__":
    user, password, link = sys.argv[1:]
    sys.stdout.write(asyncio.run(fill_in(link, user, password)))
