#!/usr/bin/env python3
"""Holds the dashboards against Grafana's own schema, as its SDK for Python has it (PyPI: grafana-foundation-sdk).

    deploy/test/check_dashboards.py     exit with 1 and every fault at once

Grafana says nothing of a key that it does not know: an option that is misspelt has no effect, and nobody sees why. So each dashboard is read
into the SDK's models, kinds of panels and queries included, and written again: what is lost, Grafana does not know. Values that are one of a
few, and units, are held against those that there are.
"""

import enum
import json
import sys
import typing
from pathlib import Path

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard, units

DASHBOARDS = sorted((Path(__file__).resolve().parents[1] / "grafana/dashboards").glob("*.json"))
# What Grafana reads and its schema leaves open: what a query variable asks, as older versions want it, and the annotations of Prometheus.
LEFT_OPEN = {"/templating/list/definition"} | {
    f"/annotations/list/{key}" for key in ("step", "tagKeys", "textFormat", "titleFormat", "useValueForTime")}
UNITS = {value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)}


def lost(given, known, path=""):
    """The paths, without the numbers of lists, of what is not in `known` as it is in `given`."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if f"{path}/{key}" in LEFT_OPEN:
                continue
            if key in known:
                yield from lost(value, known[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}", value
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        for one, other in zip(given, known):
            yield from lost(one, other, path)
    elif given != known:
        yield path, given


def kinds(hint):
    """The enumerations in a type."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        yield hint
    for part in typing.get_args(hint):
        yield from kinds(part)


def misspelt(model, path=""):
    """The values that should be one of a few, and are not."""
    if isinstance(model, list):
        for one in model:
            yield from misspelt(one, path)
    elif isinstance(model, dict):
        for key, one in model.items():
            yield from misspelt(one, f"{path}/{key}")
    elif type(model).__module__.startswith("grafana_foundation_sdk"):
        hints = typing.get_type_hints(type(model))
        for name, value in vars(model).items():
            few = {one.value for kind in kinds(hints.get(name)) for one in kind}
            if few and isinstance(value, str) and value not in few:
                yield f"{path}/{name}", value
            yield from misspelt(value, f"{path}/{name}")


def units_of(given):
    """Every unit that is named anywhere."""
    if isinstance(given, dict):
        if given.get("id") == "unit":
            yield given["value"]
        for key, value in given.items():
            if key == "unit":
                yield value
            yield from units_of(value)
    elif isinstance(given, list):
        for one in given:
            yield from units_of(one)


def main():
    plugins.register_default_plugins()
    faults = []
    for path in DASHBOARDS:
        given = json.loads(path.read_text())
        model = dashboard.Dashboard.from_json(given)
        known = json.loads(JSONEncoder().encode(model))
        faults += [f"{path.name}: Grafana does not know {where}: {json.dumps(value)[:100]}" for where, value in lost(given, known)]
        faults += [f"{path.name}: {where} cannot be {value!r}" for where, value in misspelt(model)]
        faults += [f"{path.name}: there is no unit {unit!r}" for unit in set(units_of(given)) - UNITS]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults or not DASHBOARDS else 0


if __name__ == "__main__":
    sys.exit(main())
