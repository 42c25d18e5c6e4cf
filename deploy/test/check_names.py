#!/usr/bin/env python3
"""Holds what deploy/ says of metrics and alerts against what there is.

    deploy/test/check_names.py     exit with 1 and every fault at once

 1. Dashboards and rules name only metrics of the catalogue (src/telemetry/metrics.rs), with labels that they have, or what a recording
    rule records, or what is known to come from elsewhere (RabbitMQ's plugin, the process, Prometheus itself).
 2. No metric of the catalogue is forgotten: each is in a dashboard or a rule.
 3. Each alert has its own section in the runbook, which its `runbook_url` points to, and each section of an alert has its alert.
    Links of the dashboards point to sections that there are, and from the panels there is a way to each section.
 4. Each alert has a scenario in rules/tests in which it fires, a severity, a summary and a description.
 5. Each panel has a description and a unit, asks the data source variable, and of our metrics those of the chosen pool and namespace.
    Each variable that is used is there.
 6. Links between the pages of deploy/ lead somewhere. Each block in them says what it is for, `sh` or `promql`, and is nothing else:
    what is for Prometheus does not stand among what is for a shell.
 7. What the runbook says to ask Prometheus names only what there is, as the dashboards do; `--runbook` prints these queries.

Nothing but Python's standard library, so that it runs wherever the tests run. YAML is read by the few lines that matter.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CATALOGUE = ROOT / "src/telemetry/metrics.rs"
RUNBOOK = DEPLOY / "runbook/README.md"
RULES = [DEPLOY / f"prometheus/rules/{name}.yml" for name in ("recording", "alerts")]
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
PREFIX = "interven_alerts_"

# Variables that Grafana brings along.
BUILT_IN = {"__all", "__rate_interval", "__value", "__url_time_range"}
# What others expose. From RabbitMQ's plugin, the process collector, and Prometheus itself.
OUTSIDE = {
    "up", "ALERTS",
    "process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds",
    "rabbitmq_queue_messages_ready", "rabbitmq_queue_messages_unacked", "rabbitmq_queue_consumers",
    "rabbitmq_disk_space_available_bytes",
}
# Labels that are not the catalogue's: a scrape adds the first, a histogram the last.
EVERYWHERE = {"job", "instance", "namespace", "le"}
# Metrics that no dashboard and no rule needs. None at present; say why if you add one.
UNUSED = set()

faults = []


def fault(where, problem):
    faults.append(f"{where}: {problem}")


def catalogue():
    """Each metric and its labels."""
    text = CATALOGUE.read_text().split("#[cfg(test)]\nmod tests")[0]
    lists = {name: re.findall(r'"(\w+)"', items)
             for name, items in re.findall(r"(?:const|let) (\w+)(?:: &\[&str\])? = &\[([^\]]*)\];", text)}
    found = {}
    pattern = (r'\.(?:counter|gauge)s?\(\s*"(\w+)"\s*,\s*"[^"]*"\s*,?\s*(&\[[^\]]*\]|\w+)?\s*,?\s*\)'
               r'|\.(histograms)\(\s*"(\w+)"'
               r'|(?:seconds|opts)\(\s*"(\w+)"\s*,\s*"[^"]*"\s*,?\s*(?:&SECONDS|&LATENCY_SECONDS)?\s*,?\s*\)(?:\)\)|\s*,\s*(&\[[^\]]*\]))?')
    for plain, labels, histogram, histogram_name, other, other_labels in re.findall(pattern, text):
        name = plain or histogram_name or other
        if name == "apart":
            continue
        listed = labels or other_labels
        if histogram:
            listed = "CHANNEL"
        found[PREFIX + name] = set(lists.get(listed, re.findall(r'"(\w+)"', listed)))
    if len(found) < 20 or PREFIX + "lane_state" not in found:
        fault(CATALOGUE.name, f"only {len(found)} metrics were found: has the way they are written changed?")
    return found


def metrics_in(expression):
    """Each metric that a query names, with the labels that it selects by."""
    # Variables of Grafana stand for durations, and for values within quotes.
    expression = expression.replace("$__rate_interval", "5m")
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    found = []
    for name, selector in re.findall(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\s*\()(?![\w:])", bare):
        if name in {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "offset", "bool", "vector"}:
            continue
        found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))))
    return found


def alert_blocks(text):
    """Each alert's name and the lines of its rule."""
    parts = re.split(r"^ +- alert: (\w+)\n", text, flags=re.M)
    return list(zip(parts[1::2], parts[2::2]))


def expressions_of_rules(path):
    """Each `expr` with the name of its rule."""
    name = "?"
    lines = path.read_text().splitlines()
    for at, line in enumerate(lines):
        if started := re.match(r" +- (?:alert|record): (\S+)", line):
            name = started[1]
        if written := re.match(r"( +)expr: (.*)", line):
            indent, expression = len(written[1]), written[2]
            if expression.startswith("|"):
                below = []
                for following in lines[at + 1:]:
                    if following.strip() and len(following) - len(following.lstrip()) <= indent:
                        break
                    below.append(following)
                expression = " ".join(below)
            yield f"{path.name}, {name}", expression


def panels_of(dashboard):
    for panel in dashboard["panels"]:
        yield from panel.get("panels", []) or [panel]


def check_dashboards(expressions, anchors):
    uids, linked = set(), set()
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        uids.add(dashboard["uid"])
        variables = {variable["name"] for variable in dashboard["templating"]["list"]}
        for name in set(re.findall(r"\$\{?(\w+)", path.read_text())) - variables - BUILT_IN:
            fault(path.name, f"uses the variable {name}, which it has not")
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                for name in re.findall(PREFIX + r"\w+(?:\{[^}]*\})?", variable["definition"]):
                    expressions.append((f"{path.name}, variable {variable['name']}", name))
        for annotation in dashboard["annotations"]["list"]:
            expressions.append((f"{path.name}, annotations", annotation["expr"]))
        for panel in panels_of(dashboard):
            where = f"{path.name}, panel {panel['title']!r}"
            if panel["type"] == "row":
                continue
            if not panel.get("description"):
                fault(where, "has no description")
            if not panel["fieldConfig"]["defaults"].get("unit"):
                fault(where, "has no unit")
            for target in panel["targets"]:
                for selector in re.findall(r"interven_alerts_\w+(?::\w+)?\{([^}]*)\}", target["expr"]):
                    if not {'job=~"$pool"', 'namespace=~"$namespace"'} <= set(selector.split(",")):
                        fault(where, f"asks every pool: {selector}")
                if re.search(r"interven_alerts_\w+(?::\w+)?(?![\w:{])", target["expr"]):
                    fault(where, f"asks every pool: {target['expr']}")
            for part in [panel, *panel["targets"]]:
                if part["datasource"]["uid"] != "${datasource}":
                    fault(where, "does not ask the data source variable")
            expressions.extend((where, target["expr"]) for target in panel["targets"])
            for one in panel["links"]:
                if "/runbook/" in one["url"] and "#" in one["url"]:
                    linked.add(one["url"].rpartition("#")[2])
                    if one["url"].rpartition("#")[2] not in anchors:
                        fault(where, f"links to {one['url']}, which the runbook has not")
    if len(uids) != len(DASHBOARDS) or len(uids) < 3:
        fault("dashboards", f"{len(DASHBOARDS)} files with {len(uids)} different uids")
    for anchor in sorted(one for one in anchors if one.startswith("intervenalerts")):
        if anchor not in linked:
            fault("dashboards", f"no panel links to {anchor}")
    for path in DASHBOARDS:
        for uid in re.findall(r"/d/([\w-]+)\?", path.read_text()):
            if uid not in uids:
                fault(path.name, f"links to the dashboard {uid}, which is not there")


def check_alerts(anchors):
    tests = "".join(path.read_text() for path in sorted((DEPLOY / "prometheus/rules/tests").glob("*.yml")))
    alerts = alert_blocks(RULES[1].read_text())
    if len(alerts) < 10:
        fault("alerts.yml", f"only {len(alerts)} alerts were found: has the way they are written changed?")
    for name, block in alerts:
        url = re.search(r"runbook_url: (\S+)", block)
        if not url or url[1].rpartition("#")[2] != name.lower():
            fault(name, "its runbook_url does not end in its own section")
        if name.lower() not in anchors:
            fault(name, "the runbook has no section of this name")
        for needed in ("summary:", "description:"):
            if needed not in block:
                fault(name, f"has no {needed}")
        if not re.search(r"labels: \{ severity: (critical|warning|info) \}", block):
            fault(name, "has no severity, or an unknown one")
        if f'alertname="{name}",alertstate="firing"' not in tests:
            fault(name, "fires in no scenario of rules/tests")
    for anchor in anchors:
        if anchor.startswith("intervenalerts") and anchor not in {name.lower() for name, _ in alerts}:
            fault(RUNBOOK.name, f"has a section {anchor}, and there is no such alert")


def anchors_of(page):
    """What one can link to in a page, as GitHub names it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check_links():
    for page in sorted(DEPLOY.rglob("*.md")):
        for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            to = (page.parent / path).resolve() if path else page
            if not to.exists():
                fault(page.relative_to(ROOT), f"links to {path}, which is not there")
            elif anchor and anchor not in anchors_of(to):
                fault(page.relative_to(ROOT), f"links to {path}#{anchor}, which has no such section")


# A block of a page: what it is for, and its lines.
BLOCK = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", flags=re.M)


def is_query(text):
    """Whether this asks Prometheus, and is not a command of ours that names a file or a pod."""
    asks = re.search(PREFIX + r"|\bup\{|process_start_time", text)
    return asks and not re.match(r"(?:interven|rabbit|kubectl|#)", text.strip().replace(PREFIX, ""))


def check_blocks():
    for page in sorted(DEPLOY.rglob("*.md")):
        where, text = page.relative_to(ROOT), page.read_text()
        for kind, block in BLOCK.findall(text):
            if kind not in {"sh", "promql"}:
                fault(where, f"a block is for {kind or 'nobody'}, and neither `sh` nor `promql`: {block.splitlines()[0]}")
            for line in block.splitlines():
                if kind == "sh" and is_query(line):
                    fault(where, f"among what is for a shell stands what is for Prometheus: {line}")
        for line in BLOCK.sub("", text).splitlines():
            if line.startswith("    ") or line.startswith("```"):
                fault(where, f"stands in a block that does not say what it is for: {line}")


def queries_of(page):
    """What a page says to ask Prometheus: in lines of their own, and within sentences."""
    text = page.read_text()
    blocks = [block for kind, block in BLOCK.findall(text) if kind == "promql"]
    lines = [line.partition("   #")[0] for block in blocks for line in block.splitlines()]
    words = filter(is_query, re.findall(r"`([^`]+)`", BLOCK.sub("", text)))
    yield from (written.strip() for written in [*lines, *words])


def main():
    if sys.argv[1:] == ["--runbook"]:
        print("\n".join(queries_of(RUNBOOK)))
        return 0
    known = catalogue()
    anchors = anchors_of(RUNBOOK)
    expressions = [found for path in RULES for found in expressions_of_rules(path)]
    recorded = {name for path in RULES for name in re.findall(r"- record: (\S+)", path.read_text())}
    check_dashboards(expressions, anchors)
    check_alerts(anchors)
    check_links()
    check_blocks()

    used, in_runbook = set(), [(f"{RUNBOOK.name}, {query}", query) for query in queries_of(RUNBOOK)]
    for where, expression in expressions + in_runbook:
        names = metrics_in(expression)
        if not names and not expression.startswith("vector("):
            fault(where, f"names no metric: {expression}")
        for name, labels in names:
            base = re.sub(r"_(bucket|sum|count)$", "", name) if re.sub(r"_(bucket|sum|count)$", "", name) in known else name
            if base in known:
                # What only the runbook names, nobody sees before something is wrong.
                if (where, expression) not in in_runbook:
                    used.add(base)
                for label in labels - known[base] - EVERYWHERE:
                    fault(where, f"{name} has no label {label}")
            elif name not in OUTSIDE | recorded:
                fault(where, f"there is no metric {name}")
    for name in sorted(set(known) - used - UNUSED):
        fault(CATALOGUE.name, f"{name} is in no dashboard and in no rule")

    for one in faults:
        print(f"error: {one}", file=sys.stderr)
    if not faults:
        print(f"{len(known)} metrics, {len(recorded)} recorded, {len(expressions)} queries, {len(in_runbook)} more in the runbook: all is named well")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
