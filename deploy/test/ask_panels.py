#!/usr/bin/env python3
"""Asks a running Prometheus every query of every dashboard, and names those that return no data.

    deploy/test/ask_panels.py http://127.0.0.1:9090 CHANNEL [--without TITLE]...

CHANNEL stands for the variable of the page of one channel: take one that has delivered something, and better not everything. A NaN alone
is no data. `--without` leaves a panel out, by its title or by its row's: RabbitMQ's row needs RabbitMQ's plugin. Exits with 1 where
something is missing.
"""

import json
import sys
import urllib.parse
import urllib.request
from pathlib import Path

DASHBOARDS = Path(__file__).resolve().parents[1] / "grafana/dashboards"


def ask(server, query):
    """The values that a query has now."""
    url = f"{server.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=30) as reply:
        return [sample["value"][1] for sample in json.load(reply)["data"]["result"]]


def main():
    arguments = sys.argv[1:]
    without = {arguments[at + 1] for at, argument in enumerate(arguments) if argument == "--without"}
    if len(arguments) != 2 + 2 * len(without):
        print(__doc__, file=sys.stderr)
        return 2
    server, channel = arguments[:2]
    asked, missing = 0, []
    for path in sorted(DASHBOARDS.glob("*.json")):
        row = ""
        for panel in json.loads(path.read_text())["panels"]:
            if panel["type"] == "row":
                row = panel["title"]
            if {row, panel["title"]} & without:
                continue
            for target in panel.get("targets", []):
                query = target["expr"].replace("$__rate_interval", "1m").replace("$pool", ".*").replace("$channel", channel)
                asked += 1
                if all(value == "NaN" for value in ask(server, query)):
                    missing.append(f"{path.name}, {panel['title']!r}: {query}")
    for one in missing:
        print(f"no data: {one}", file=sys.stderr)
    print(f"{asked - len(missing)} of {asked} queries have data")
    return 1 if missing or not asked else 0


if __name__ == "__main__":
    sys.exit(main())
