"""The application of procrastinate whose workers a test kills; the environment says where everything is."""

from __future__ import annotations

import os

import procrastinate

from asyncsmtp.bulk.procrastinate_jobs import ProcrastinateJobs

url = os.environ["ASYNCSMTP_LEDGER"]
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=1, max_size=3))
jobs = ProcrastinateJobs(app, os.environ["CAMPAIGNS"], ledger=url, rows=500, lease=3.0)
