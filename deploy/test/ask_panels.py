#!/usr/bin/env python3
"""Asks a running Prometheus every query of every dashboard, and names those that return no data.

    deploy/test/ask_panels.py http://127.0.0.1:9090 CHANNEL [--namespace REGEX] [--without TITLE]...

CHANNEL stands for the variable of the page of one channel: take one that has delivered something, and better not everything. A NaN alone
is no data. What fills the variables is asked, too, and the alerts that are drawn into the graphs ("annotations"). `--without` leaves a
panel out, by its title or by its row's: RabbitMQ's row needs RabbitMQ's plugin. Exits with 1 where something is missing, and where what
was left out is not there or has data after all.
"""

import argparse
import json
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

DASHBOARDS = Path(__file__).resolve().parents[1] / "grafana/dashboards"


def get(server, path, **parameters):
    url = f"{server.rstrip('/')}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=30) as reply:
        return json.load(reply)["data"]


def has_data(server, query):
    """Whether a query has a value now that is a number."""
    return any(sample["value"][1] != "NaN" for sample in get(server, "query", query=query)["result"])


def questions(path):
    """What a dashboard asks: where, under which titles, and what."""
    dashboard, row = json.loads(path.read_text()), ""
    for annotation in dashboard["annotations"]["list"]:
        yield "annotations", {"annotations"}, annotation["expr"]
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        for target in panel.get("targets", []):
            yield f"panel {panel['title']!r}", {row, panel["title"]}, target["expr"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("channel")
    parser.add_argument("--namespace", default=".*")
    parser.add_argument("--without", action="append", default=[])
    given = parser.parse_args()
    values = {"$__rate_interval": "1m", "$pool": ".*", "$namespace": given.namespace, "$channel": given.channel}

    def filled(query):
        for name, value in values.items():
            query = query.replace(name, value)
        return query

    count, wrong, left_out = 0, [], {title: [] for title in given.without}
    for path in sorted(DASHBOARDS.glob("*.json")):
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if found := re.fullmatch(r"label_values\((.+), (\w+)\)", variable.get("definition", "")):
                count += 1
                # Where Prometheus knows of no namespaces, there is none to choose, and "All" is what it has to be.
                if not get(given.server, f"label/{found[2]}/values", **{"match[]": filled(found[1])}) and found[2] != "namespace":
                    wrong.append(f"{path.name}: the variable {variable['name']!r} has nothing to choose from")
        for where, titles, query in questions(path):
            count += 1
            data = has_data(given.server, filled(query))
            for title in titles & left_out.keys():
                left_out[title].append(data)
            if not data and not titles & left_out.keys():
                wrong.append(f"{path.name}, {where}: no data: {filled(query)}")
    for title, data in left_out.items():
        if not data:
            wrong.append(f"there is no panel {title!r}")
        elif all(data):
            wrong.append(f"{title!r} was left out, and has data")
    for one in wrong:
        print(f"error: {one}", file=sys.stderr)
    print(f"{count} queries were asked")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main())
