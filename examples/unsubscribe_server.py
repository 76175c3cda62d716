"""Serve the URL of List-Unsubscribe: a page for people, and one-click unsubscription for mail programs (RFC 8058).

A GET shows a button and changes nothing, because scanners follow every link in a mail. A POST adds the address to a
suppression list, which takes effect at once in every campaign that names it. The addresses are those of a file, or of
the ledgers of a folder. Needs `pip install uvicorn`; FastAPI and Starlette mount the application as well.
Run: python examples/unsubscribe_server.py people.csv
"""

import os
import sys

import uvicorn

from asyncsmtp.bulk import UnsubscribeApp

SECRET = os.environ.get("ASYNCSMTP_UNSUBSCRIBE_SECRET", "a secret for this example")

if __name__ == "__main__":
    app = UnsubscribeApp("suppressed.db", sys.argv[1], secret=SECRET)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]) if len(sys.argv) > 2 else 8080)
