#!/usr/bin/env python3
"""Writes prometheus-rule.yaml: the groups of deploy/prometheus/rules as one PrometheusRule.

    deploy/kubernetes/components/prometheus-rule/build.py            write it
    deploy/kubernetes/components/prometheus-rule/build.py --check    exit with 1 where it is not what this script writes

kustomize cannot put one file into another, and reads no file outside its own directories.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RULES = HERE.parents[2] / "prometheus/rules"
HEAD = """\
# Written by build.py from deploy/prometheus/rules: change those, and run it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: interven-alerts
spec:
  groups:
"""


def groups(path):
    """What follows `groups:`, two columns further in."""
    below = path.read_text().partition("\ngroups:\n")[2]
    return "".join(f"  {line}\n" if line else "\n" for line in below.rstrip("\n").split("\n"))


def main():
    path = HERE / "prometheus-rule.yaml"
    text = HEAD + "\n".join(groups(RULES / f"{name}.yml") for name in ("recording", "alerts"))
    if "--check" not in sys.argv[1:]:
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        print(f"error: {path} is not what build.py writes\nhint: run deploy/kubernetes/components/prometheus-rule/build.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
