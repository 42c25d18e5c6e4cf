#!/usr/bin/env python3
"""Writes dashboards/*.json.

    deploy/grafana/build.py            write them
    deploy/grafana/build.py --check    exit with 1 where a file is not what this script writes

The dashboards are committed, and Grafana reads them as they are; they are made here because JSON has no comments and no functions, and
a panel is ten words of meaning in sixty lines of form. What every panel must have (a unit, a description, the data source variable) is
an argument without a default, so none can be forgotten.

Sums and maxima: see prometheus/rules/recording.yml. Every query of ours names `job=~"$pool",namespace=~"$namespace"`: a pool is a job, and a
namespace where Kubernetes gives one; where nothing does, "All" takes what has none.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent / "dashboards"
RUNBOOK = "https://github.com/intervensecurity/interven-alerts/blob/main/deploy/runbook/README.md"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "text"

# Label values and their colours, everywhere the same.
ENDINGS = {"delivered": GREEN, "folded": BLUE, "dead": RED}
OUTCOMES = {"delivered": GREEN, "accepted": "light-green", "throttled": YELLOW, "try_later": ORANGE, "refused": "purple", "broken": RED}
SEVERITIES = {"LOW": BLUE, "MEDIUM": YELLOW, "HIGH": ORANGE, "CRITICAL": RED}

POOL = 'job=~"$pool",namespace=~"$namespace"'
CHANNEL = f'{POOL},channel="$channel"'


def thresholds(*steps):
    """`(None, colour)` first, then `(from, colour)`."""
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for value, colour in steps]}


PLAIN = thresholds((None, GREY))
ZERO_IS_WELL = thresholds((None, GREEN), (1, RED))


class Dashboard:
    """Panels in rows of 24 columns, placed from left to right."""

    def __init__(self, uid, title, description, variables, links):
        self.panels, self.x, self.y, self.tall = [], 0, 0, 0
        self.head = {
            "uid": uid,
            "title": title,
            "description": description,
            "tags": ["interven-alerts"],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "fiscalYearStartMonth": 0,
            "liveNow": False,
            "weekStart": "",
            "annotations": {"list": [alerts_as_annotations()]},
            "links": links,
            "templating": {"list": variables},
        }

    def row(self, title):
        self.end_line()
        self.add({"type": "row", "title": title, "collapsed": False, "panels": []}, 24, 1)

    def end_line(self):
        self.x, self.y, self.tall = 0, self.y + self.tall, 0

    def add(self, panel, width, height):
        if self.x + width > 24:
            self.end_line()
        panel["id"] = len(self.panels) + 1
        panel["gridPos"] = {"x": self.x, "y": self.y, "w": width, "h": height}
        self.x, self.tall = self.x + width, max(self.tall, height)
        self.panels.append(panel)

    def panel(self, kind, title, description, queries, unit, size, options, *, colours=PLAIN, links=(), overrides=(), custom=None,
              mappings=(), decimals=None, least=None, transformations=(), empty=None):
        defaults = {"unit": unit, "thresholds": colours, "mappings": list(mappings), "custom": custom or {}}
        defaults["color"] = {"mode": "palette-classic"} if kind == "timeseries" else {"mode": "thresholds"}
        if decimals is not None:
            defaults["decimals"] = decimals
        if least is not None:
            defaults["min"] = least
        if empty is not None:
            defaults["noValue"] = empty
        panel = {
            "type": kind,
            "title": title,
            "description": description,
            "datasource": DATASOURCE,
            "targets": [target(at, query) for at, query in enumerate(queries)],
            "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
            "options": options,
            "links": list(links),
        }
        if transformations:
            panel["transformations"] = list(transformations)
        self.add(panel, *size)

    def stat(self, title, description, query, unit, *, colours, size=(4, 4), links=(), mappings=(), decimals=None, empty=None):
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background", "graphMode": "area", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
        }
        self.panel("stat", title, description, [now(query, "")], unit, size, options, colours=colours, links=links, mappings=mappings,
                   decimals=decimals, empty=empty)

    def series(self, title, description, queries, unit, *, size=(12, 8), stacked=False, colours=None, by=None, lines=(), links=()):
        """`by`: label values and their colours. `lines`: thresholds that are drawn."""
        custom = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if stacked else 8, "showPoints": "never", "spanNulls": False,
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if lines else "off"},
        }
        options = {
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
        overrides = [colour_of(name, colour) for name, colour in (by or {}).items()]
        self.panel("timeseries", title, description, [over_time(*query) for query in queries], unit, size, options,
                   colours=thresholds((None, GREY), *lines) if lines else PLAIN, overrides=overrides, custom=custom, least=0, links=links)

    def json(self):
        self.end_line()
        return json.dumps({**self.head, "panels": self.panels}, indent=2, ensure_ascii=False) + "\n"


def target(at, query):
    return {"refId": chr(ord("A") + at), "datasource": DATASOURCE, "editorMode": "code", **query}


def now(expr, legend):
    return {"expr": expr, "legendFormat": legend, "instant": True, "range": False}


def over_time(expr, legend):
    return {"expr": expr, "legendFormat": legend, "instant": False, "range": True}


def as_table(expr):
    return {"expr": expr, "legendFormat": "", "instant": True, "range": False, "format": "table"}


def colour_of(name, colour):
    return {"matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}


def alerts_as_annotations():
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": f'ALERTS{{{POOL},alertname=~"IntervenAlerts.+",alertstate="firing",severity=~"critical|warning"}}',
        "step": "60s",
        "titleFormat": "{{alertname}}",
        "textFormat": "{{channel}} {{instance}}",
        "tagKeys": "severity",
        "useValueForTime": False,
    }


def datasource_variable():
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}, "hide": 0,
            "includeAll": False, "multi": False, "refresh": 1, "regex": "", "options": [], "skipUrlSync": False}


def query_variable(name, label, query, several):
    variable = {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "definition": query,
                "query": {"query": query, "refId": name}, "current": {}, "hide": 0, "includeAll": several, "multi": several, "refresh": 2,
                "regex": "", "sort": 1, "options": [], "skipUrlSync": False}
    if several:
        variable["allValue"] = ".*"
        variable["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return variable


def pool_variable():
    return query_variable("pool", "Pool", "label_values(interven_alerts_build_info, job)", True)


def namespace_variable():
    return query_variable("namespace", "Namespace", 'label_values(interven_alerts_build_info{job=~"$pool"}, namespace)', True)


def link(title, url):
    return {"title": title, "url": url, "type": "link", "icon": "external link", "targetBlank": False, "asDropdown": False,
            "includeVars": False, "keepTime": True, "tags": [], "tooltip": ""}


def to_dashboard(uid, title):
    return link(title, f"/d/{uid}?${{datasource:queryparam}}&${{pool:queryparam}}&${{namespace:queryparam}}")


TO_OVERVIEW = to_dashboard("interven-alerts-overview", "Overview")
TO_CHANNEL = to_dashboard("interven-alerts-channel", "One channel")
TO_WORKERS = to_dashboard("interven-alerts-workers", "Workers and broker")
TO_RUNBOOK = link("Runbook", RUNBOOK)
# From the name of a channel in a table.
CHANNEL_PAGE = "/d/interven-alerts-channel?var-channel=${__value.raw}&${datasource:queryparam}&${pool:queryparam}&${namespace:queryparam}&${__url_time_range}"


def runbook(alert):
    """A panel's link to what to do about it."""
    return {"title": f"Runbook: {alert}", "url": f"{RUNBOOK}#{alert.lower()}", "targetBlank": True}


def state_of(selector, by):
    """The worst state as a number, which `state_names` names: what somebody must act upon is highest."""
    of = ((5, "held"), (4, "stopped"), (3, "paused"), (2, "probing"), (1, "flowing"))
    each = " or ".join(f'{weight} * (interven_alerts_lane_state{{{selector},state="{state}"}} == 1)' for weight, state in of)
    return f"max by ({by}) ({each})"


def overview():
    board = Dashboard(
        "interven-alerts-overview", "interven-alerts: overview",
        "Is anyone not being told? The first line answers: all green, and everybody is. What is red says who is not, and links "
        "to what to do.",
        [datasource_variable(), pool_variable(), namespace_variable()], [TO_CHANNEL, TO_WORKERS, TO_RUNBOOK])

    board.row("Is anyone not being told?")
    wide = (6, 3)
    board.stat(
        "Workers at work", "Workers that answer and are connected to the broker. None: nobody is told anything.",
        f"count(interven_alerts_broker_connected{{{POOL}}} == 1) or vector(0)",
        "none", size=wide, colours=thresholds((None, RED), (1, GREEN)),
        links=[runbook("IntervenAlertsNoWorkers"), runbook("IntervenAlertsBrokerDown"), runbook("IntervenAlertsWorkerWithoutBroker")])
    board.stat(
        "Channels held", "Channels whose destination is broken in at least one worker: gone, revoked, forbidden. Nobody is told "
                         "there until somebody acts.",
        f"count(max by (job, namespace, channel) (worker_channel:interven_alerts_broken:bool{{{POOL}}})) or vector(0)",
        "none", size=wide, colours=ZERO_IS_WELL, links=[runbook("IntervenAlertsChannelHeld"), runbook("IntervenAlertsChannelHeldInOneWorker")])
    board.stat(
        "Channels without success", "Channels that decisions matched within 15 minutes, and where nothing was delivered or "
                                    "folded. Also those that an operator paused: nobody is told there either.",
        f"count(sum by (job, namespace, channel) (increase(interven_alerts_deliveries_matched_total{{{POOL}}}[15m])) > 0 and "
        f'sum by (job, namespace, channel) (increase(interven_alerts_deliveries_total{{{POOL},ending=~"delivered|folded"}}[15m])) == 0) or '
        f'vector(0)',
        "none", size=wide, colours=ZERO_IS_WELL, links=[runbook("IntervenAlertsNoSuccess"), runbook("IntervenAlertsLaneStopped")])
    board.stat(
        "Decisions that nobody takes in", "Decisions that wait on the broker while, for ten minutes, no worker has read one.",
        f"max(interven_alerts_decisions_waiting{{{POOL}}} and on (job, namespace) "
        f"sum by (job, namespace) (increase(interven_alerts_decisions_total{{{POOL}}}[10m])) == 0) or vector(0)",
        "none", size=wide, colours=ZERO_IS_WELL, links=[runbook("IntervenAlertsDecisionsNotTaken"), runbook("IntervenAlertsAcksNearPrefetch")])
    board.stat(
        "The longest wait", "How long the oldest delivery that waits has waited, of all channels.",
        f"max(channel:interven_alerts_oldest_waiting:seconds{{{POOL}}}) or vector(0)",
        "s", size=wide, colours=thresholds((None, GREEN), (300, YELLOW), (900, RED)), links=[runbook("IntervenAlertsOldestWaiting")])
    board.stat(
        "CRITICAL told to nobody, 1 h", "CRITICAL decisions of the last hour that no channel's filters let pass.",
        f'sum(increase(interven_alerts_decisions_unrouted_total{{{POOL},severity="CRITICAL"}}[1h]))',
        "none", size=wide, colours=ZERO_IS_WELL, decimals=0, links=[runbook("IntervenAlertsCriticalUnrouted")])
    board.stat(
        "Approvals nobody was asked for, 1 h", "Approvals of the last hour that expired before they could be posted.",
        f'sum(increase(interven_alerts_dead_letters_total{{{POOL},reason="approval_expired"}}[1h]))',
        "none", size=wide, colours=ZERO_IS_WELL, decimals=0, links=[runbook("IntervenAlertsApprovalsExpiredUntold")])
    board.stat(
        "Dead letters", "Decisions and deliveries that could not be delivered and are kept on disk, over all workers. They wait "
                        "to be replayed or purged.",
        f"sum(interven_alerts_dead_letters{{{POOL}}})",
        "none", size=wide, colours=thresholds((None, GREEN), (1, ORANGE)),
        links=[runbook("IntervenAlertsDeadLettersGrowing"), runbook("IntervenAlertsDeadLettersLeft")])
    firing_table(board)

    board.row("Channels")
    channels_table(board)
    board.panel(
        "state-timeline", "What each channel's lane does",
        "The worst state over all workers: flowing (nothing to do), probing (one try to find out), paused (the endpoint asked "
        "for a rest, or fails), "
        "stopped (an operator paused it), held (somebody must act).",
        [over_time(state_of(POOL, "channel"), "{{channel}}")],
        "none", (24, 7), {"mergeValues": True, "showValue": "never", "alignValue": "left", "rowHeight": 0.85,
                         "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                         "tooltip": {"mode": "single", "sort": "none"}},
        mappings=[state_names()], custom={"fillOpacity": 80, "lineWidth": 0},
        links=[runbook("IntervenAlertsChannelHeld"), runbook("IntervenAlertsLanePaused")])

    board.row("Flow")
    board.series("Decisions in", "Decisions read from the broker, by severity, redeliveries included.",
                 [(f"sum by (severity) (rate(interven_alerts_decisions_total{{{POOL}}}[$__rate_interval]))", "{{severity}}")],
                 "cps", stacked=True, by=SEVERITIES)
    board.series("Deliveries by how they ended", "Delivered by themselves, folded into a digest, or dead. What waits has no "
                                                 "ending yet.",
                 [(f"sum by (ending) (rate(interven_alerts_deliveries_total{{{POOL}}}[$__rate_interval]))", "{{ending}}")],
                 "cps", stacked=True, by=ENDINGS)
    board.series("What waits", "Deliveries that wait, by channel: in the workers' memory, and in the lane's queue on the broker.",
                 [(f"sum by (channel) (channel:interven_alerts_waiting:sum{{{POOL}}})", "{{channel}}")], "short",
                 links=[runbook("IntervenAlertsBacklog")])
    board.series("From decision to delivery, 99th percentile",
                 "How old decisions are when a channel has them. The line is where IntervenAlertsDeliveriesLate begins.",
                 [(f"max by (channel) (channel:interven_alerts_latency:p99_10m{{{POOL}}})", "{{channel}}")], "s",
                 lines=[(300, RED)], links=[runbook("IntervenAlertsDeliveriesLate")])
    board.series("Dead letters written, by reason",
                 "Each is kept on disk. refused: the endpoint would not have this payload; exhausted: every try failed; "
                 "expired: too old; "
                 "malformed: no decision at all.",
                 [(f"sum by (reason) (increase(interven_alerts_dead_letters_total{{{POOL}}}[5m]))", "{{reason}}")], "short",
                 links=[runbook("IntervenAlertsDeadLettersGrowing"), runbook("IntervenAlertsMessagesUnreadable")])
    board.series("Approvals", "Decisions that ask for an approval, and first answers to them, an hour each.",
                 [(f'sum(increase(interven_alerts_decisions_total{{{POOL},decision="REQUIRE_APPROVAL"}}[1h]))', "asked"),
                  (f"sum by (answer) (increase(interven_alerts_approvals_total{{{POOL}}}[1h]))", "{{answer}}")], "short",
                 by={"asked": BLUE, "approve": GREEN, "deny": RED},
                 links=[runbook("IntervenAlertsApprovalsUnanswered"), runbook("IntervenAlertsApprovalsSlow")])
    return board


def state_names():
    names = {"1": ("flowing", GREEN), "2": ("probing", BLUE), "3": ("paused", YELLOW), "4": ("stopped", "purple"), "5": ("held", RED)}
    return {"type": "value", "options": {value: {"text": text, "color": colour, "index": int(value)} for value, (text, colour) in names.items()}}


def firing_table(board):
    """What an on-call person looks at second: which alerts, and of what."""
    board.panel(
        "table", "What fires now",
        "The alerts of this pool that fire at this moment, as Prometheus knows them. What to do about each is in the runbook, under its name.",
        [as_table(f'max by (severity, alertname, channel, instance, reason, namespace) (ALERTS{{{POOL},alertname=~"IntervenAlerts.+",'
                  f'alertstate="firing"}})')],
        "none", (24, 6),
        {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "fields": "", "reducer": ["sum"], "countRows": False},
         "sortBy": [{"displayName": "Severity", "desc": False}]},
        overrides=[
            {"matcher": {"id": "byName", "options": "Severity"},
             "properties": [{"id": "mappings", "value": [severity_names()]}, {"id": "custom.cellOptions", "value": {"type": "color-background"}},
                            {"id": "custom.width", "value": 110}]},
            {"matcher": {"id": "byName", "options": "Channel"},
             "properties": [{"id": "links", "value": [{"title": "This channel", "url": CHANNEL_PAGE}]}]},
        ],
        transformations=[{"id": "organize", "options": {
            "excludeByName": {"Time": True, "Value": True},
            "indexByName": {"severity": 0, "alertname": 1, "channel": 2, "instance": 3, "reason": 4, "namespace": 5},
            "renameByName": {"severity": "Severity", "alertname": "Alert", "channel": "Channel", "instance": "Worker", "reason": "Reason",
                             "namespace": "Namespace"}}}],
        links=[TO_RUNBOOK], empty="Nothing fires")


def severity_names():
    colours = {"critical": RED, "warning": ORANGE, "info": BLUE}
    return {"type": "value", "options": {name: {"text": name, "color": colour, "index": at} for at, (name, colour) in enumerate(colours.items())}}


def channels_table(board):
    """One line per channel, worst first."""
    columns = [
        ("State", state_of(POOL, "channel"), "none", None),
        ("Waiting", f"sum by (channel) (channel:interven_alerts_waiting:sum{{{POOL}}})", "short", thresholds((None, GREY), (100, YELLOW), (1000, ORANGE))),
        ("Oldest waits", f"max by (channel) (channel:interven_alerts_oldest_waiting:seconds{{{POOL}}})", "s",
         thresholds((None, GREY), (300, YELLOW), (900, RED))),
        ("Takes", f"max by (channel) (channel:interven_alerts_drain:seconds{{{POOL}}})", "s", thresholds((None, GREY), (300, YELLOW), (900, RED))),
        ("Last success", f"time() - max by (channel) (channel:interven_alerts_last_success:max{{{POOL}}} > 0)", "s", None),
        ("Told, 1 h", f'sum by (channel) '
                      f'(increase(interven_alerts_deliveries_total{{{POOL},ending=~"delivered|folded"}}[1h]))', "short", None),
        ("Dead letters", f'sum by (channel) (interven_alerts_dead_letters{{{POOL},channel!=""}})', "short", thresholds((None, GREY), (1, ORANGE))),
    ]
    letters = "ABCDEFG"
    overrides = [{
        "matcher": {"id": "byName", "options": "Channel"},
        "properties": [{"id": "links", "value": [{
            "title": "This channel",
            "url": CHANNEL_PAGE}]}],
    }]
    for name, _, unit, colours in columns:
        properties = [{"id": "unit", "value": unit}]
        if name == "State":
            properties += [{"id": "mappings", "value": [state_names()]}, {"id": "custom.cellOptions", "value": {"type": "color-background"}}]
        if colours:
            properties += [{"id": "thresholds", "value": colours}, {"id": "custom.cellOptions", "value": {"type": "color-text"}}]
        if unit == "short":
            properties.append({"id": "decimals", "value": 0})
        overrides.append({"matcher": {"id": "byName", "options": name}, "properties": properties})
    board.panel(
        "table", "Channels",
        "Every channel and its worst state over all workers. Oldest waits: for how long; empty: nothing does. Takes: how long what "
        "waits will take at the present pace. "
        "Last success: how long ago any worker got anything through, canaries included; empty: not since the workers started.",
        [as_table(query) for _, query, _, _ in columns], "none", (24, 9),
        {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "fields": "", "reducer": ["sum"], "countRows": False},
         "sortBy": [{"displayName": "State", "desc": True}]},
        overrides=overrides,
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {
                "excludeByName": {"Time": True},
                "indexByName": {"channel": 0, **{f"Value #{letter}": at + 1 for at, letter in enumerate(letters)}},
                "renameByName": {"channel": "Channel", **{f"Value #{letter}": name for letter, (name, *_) in zip(letters, columns)}}}},
        ],
        links=[runbook("IntervenAlertsChannelHeld"), runbook("IntervenAlertsNoSuccess")])


def channel():
    board = Dashboard(
        "interven-alerts-channel", "interven-alerts: one channel",
        "What happens to the decisions that one channel wants: matched, waiting, tried, told or dead.",
        [datasource_variable(), pool_variable(), namespace_variable(),
         query_variable("channel", "Channel", f"label_values(interven_alerts_lane_state{{{POOL}}}, channel)", False)],
        [TO_OVERVIEW, TO_WORKERS, TO_RUNBOOK])

    board.row("$channel")
    narrow = (3, 4)
    board.stat("Held in workers", "Workers whose lane of this channel is held: the endpoint is gone, revoked or forbidden.",
               f"count(worker_channel:interven_alerts_broken:bool{{{CHANNEL}}}) or vector(0)", "none", size=narrow, colours=ZERO_IS_WELL,
               links=[runbook("IntervenAlertsChannelHeld"), runbook("IntervenAlertsChannelHeldInOneWorker")])
    board.stat("Paused, last 15 min", "The part of the last 15 minutes that the lane was paused, in the worker where it was "
                                      "longest.",
               f'max(avg_over_time(interven_alerts_lane_state{{{CHANNEL},state="paused"}}[15m]))', "percentunit",
               size=narrow, colours=thresholds((None, GREEN), (0.2, YELLOW), (0.5, RED)), links=[runbook("IntervenAlertsLanePaused")])
    board.stat("The oldest waits", "How long the oldest delivery that waits has waited.",
               f"max(channel:interven_alerts_oldest_waiting:seconds{{{CHANNEL}}}) or vector(0)", "s",
               size=narrow, colours=thresholds((None, GREEN), (300, YELLOW), (900, RED)), links=[runbook("IntervenAlertsOldestWaiting")])
    board.stat("Waiting", "Deliveries that wait: in memory (sum over workers) and in the lane's queue (one for the pool).",
               f"sum(channel:interven_alerts_waiting:sum{{{CHANNEL}}})", "short", size=narrow, colours=thresholds((None, GREEN), (100, YELLOW), (1000, ORANGE)),
               links=[runbook("IntervenAlertsBacklog")])
    board.stat("What waits takes", "At the pace of the last ten minutes; infinite where nothing moves.",
               f"max(channel:interven_alerts_drain:seconds{{{CHANNEL}}})", "s",
               size=narrow, colours=thresholds((None, GREEN), (300, YELLOW), (900, RED)), links=[runbook("IntervenAlertsBacklog")])
    board.stat("Since the last success", "How long ago any worker got anything through, canaries included. Compare with the "
                                         "channel's canary, or with how often decisions match.",
               f"time() - max(channel:interven_alerts_last_success:max{{{CHANNEL}}} > 0)", "s",
               size=narrow, colours=thresholds((None, GREEN), (86_400, YELLOW), (172_800, ORANGE)), empty="never", links=[runbook("IntervenAlertsCanaryMissing")])
    board.stat("A canary every", "How often a quiet test decision finds out whether the channel gets through.",
               f"max(interven_alerts_canary_period_seconds{{{CHANNEL}}})", "s", size=narrow, colours=thresholds((None, BLUE)),
               mappings=[{"type": "value", "options": {"0": {"text": "no canary", "color": GREY, "index": 0}}}],
               links=[runbook("IntervenAlertsCanaryMissing")])
    board.stat("Dead letters", "Of this channel, in the stores of all workers.",
               f"sum(interven_alerts_dead_letters{{{CHANNEL}}})", "short", size=narrow, colours=thresholds((None, GREEN), (1, ORANGE)),
               links=[runbook("IntervenAlertsDeadLettersLeft")])

    board.row("Deliveries")
    board.series("Matched, and how they ended",
                 "Over hours, what matched is told or dead or still waiting. A replay ends like any other delivery and is not "
                 "matched again.",
                 [(f"sum(rate(interven_alerts_deliveries_matched_total{{{CHANNEL}}}[$__rate_interval]))", "matched"),
                  (f"sum by (ending) (rate(interven_alerts_deliveries_total{{{CHANNEL}}}[$__rate_interval]))", "{{ending}}"),
                  (f"sum(rate(interven_alerts_replayed_total{{{CHANNEL}}}[$__rate_interval]))", "replayed")],
                 "cps", by={"matched": GREY, "replayed": "purple", **ENDINGS}, links=[runbook("IntervenAlertsNoSuccess")])
    board.series("What waits, and where",
                 "Memory: straight from the intake, in one worker. Lane queue: on the broker, safe from any crash; every worker "
                 "shows the same queue, so this is the maximum.",
                 [(f'sum(interven_alerts_deliveries_waiting{{{CHANNEL},where="memory"}})', "memory"),
                  (f'max(interven_alerts_deliveries_waiting{{{CHANNEL},where="lane_queue"}})', "lane queue")],
                 "short", links=[runbook("IntervenAlertsBacklog")])
    board.series("How long the oldest waits",
                 "Since a worker first routed it. 0 where nothing waits. The line is where IntervenAlertsOldestWaiting begins. "
                 "While an operator has paused the channel, nobody looks into its queue.",
                 [(f"max(channel:interven_alerts_oldest_waiting:seconds{{{CHANNEL}}}) or vector(0)", "oldest")], "s",
                 lines=[(900, RED)], links=[runbook("IntervenAlertsOldestWaiting")])
    board.series("From decision to delivery",
                 "How old decisions are when the endpoint accepts them. The line is where IntervenAlertsDeliveriesLate begins.",
                 [(f"histogram_quantile({q}, sum by (le) "
                   f"(rate(interven_alerts_delivery_latency_seconds_bucket{{{CHANNEL}}}[$__rate_interval])))", name)
                  for q, name in ((0.5, "half"), (0.9, "90 %"), (0.99, "99 %"))],
                 "s", lines=[(300, RED)], links=[runbook("IntervenAlertsDeliveriesLate")])
    board.series("Dead letters written, by reason", "What became a dead letter within five minutes, and why.",
                 [(f"sum by (reason) (increase(interven_alerts_dead_letters_total{{{CHANNEL}}}[5m]))", "{{reason}}")], "short",
                 links=[runbook("IntervenAlertsDeadLettersGrowing"), runbook("IntervenAlertsApprovalsExpiredUntold")])

    board.row("The endpoint")
    board.series("Tries, by outcome",
                 "accepted: a 2xx that promises no more; throttled: a 429; try_later: it failed, or nobody answered; refused: "
                 "it would not have this payload; "
                 "broken: it is gone or forbidden.",
                 [(f"sum by (outcome) (rate(interven_alerts_attempts_total{{{CHANNEL}}}[$__rate_interval]))", "{{outcome}}")],
                 "cps", stacked=True, by=OUTCOMES)
    board.series("How long a try takes", "From the request to the end of the reply, or to the channel's `timeout`.",
                 [(f"histogram_quantile({q}, sum by (le) "
                   f"(rate(interven_alerts_attempt_duration_seconds_bucket{{{CHANNEL}}}[$__rate_interval])))", name)
                  for q, name in ((0.5, "half"), (0.9, "90 %"), (0.99, "99 %"))], "s")

    board.row("The lane")
    board.series("State, in each worker",
                 "A limited channel has one owner in the pool; a worker that does not own the lane may say flowing while the "
                 "owner is paused or held. "
                 "1 flowing, 2 probing, 3 paused, 4 stopped, 5 held.",
                 [(state_of(CHANNEL, "instance"), "{{instance}}")],
                 "none", lines=[(5, RED)], links=[runbook("IntervenAlertsChannelHeld"), runbook("IntervenAlertsLaneStopped")])
    board.series("Why it waits",
                 "The part of the time that the lane had work and waited: pace (its rate limit), backoff (between tries), "
                 "paused, held.",
                 [(f"sum by (why) "
                   f"(rate(interven_alerts_lane_wait_seconds_total{{{CHANNEL}}}[$__rate_interval]))", "{{why}}")], "percentunit",
                 by={"pace": BLUE, "backoff": ORANGE, "paused": YELLOW, "held": RED})
    return board


def workers():
    board = Dashboard(
        "interven-alerts-workers", "interven-alerts: workers and broker",
        "The processes, their way to the broker, their stores of dead letters, and RabbitMQ itself.",
        [datasource_variable(), pool_variable(), namespace_variable()], [TO_OVERVIEW, TO_CHANNEL, TO_RUNBOOK])

    board.row("Workers")
    board.stat("Workers", "Workers that Prometheus can scrape.", f"count(interven_alerts_build_info{{{POOL}}})", "none",
               colours=thresholds((None, RED), (1, YELLOW), (2, GREEN)), links=[runbook("IntervenAlertsWorkerDown"), runbook("IntervenAlertsNoWorkers")])
    board.stat("Versions", "More than one only while a new version is rolled out.", f"count(count by (version) "
                                                                                    f"(interven_alerts_build_info{{{POOL}}}))", "none",
               colours=thresholds((None, GREEN), (2, YELLOW)))
    board.stat("Since the oldest configuration was taken over", "By the worker that took its present configuration over longest "
                                                                "ago: at a reload, or at its start. "
               "Older than your last change: that worker has refused it.",
               f"time() - min(interven_alerts_config_reload_success_timestamp_seconds{{{POOL}}})", "s", colours=thresholds((None, BLUE)),
               links=[runbook("IntervenAlertsConfigurationsDiffer")])
    board.stat("Configurations refused", "Workers that have refused a changed configuration and go on with the old one.",
               f"count(interven_alerts_config_last_reload_successful{{{POOL}}} == 0) or vector(0)", "none", colours=ZERO_IS_WELL,
               links=[runbook("IntervenAlertsConfigurationReloadFailed")])
    board.stat("Stores not writable", "Workers whose dead-letter store takes no letters: a full or failing disk.",
               f"count(interven_alerts_dead_letter_store_writable{{{POOL}}} == 0) or vector(0)", "none", colours=ZERO_IS_WELL,
               links=[runbook("IntervenAlertsStoreNotWritable")])
    board.stat("Damage in stores", "Damaged parts that were found when the stores were opened. They are kept aside.",
               f"sum(interven_alerts_dead_letter_store_damaged_total{{{POOL}}})", "none", colours=ZERO_IS_WELL,
               links=[runbook("IntervenAlertsStoreDamaged")])
    board.stat("Dead letters on the broker", "In the queue of last resort, because no store takes them.",
               f"max(interven_alerts_dead_letters_waiting{{{POOL}}})", "none", colours=ZERO_IS_WELL,
               links=[runbook("IntervenAlertsDeadLettersWaitOnBroker")])
    board.series("Channels that cannot be read",
                 "Made over the API or in the console, and unreadable for this worker: its key, version or `[egress]` differ. What they "
                 "want is held.",
                 [(f"interven_alerts_channels_unreadable{{{POOL}}}", "{{instance}}")], "none", lines=[(1, RED)],
                 links=[runbook("IntervenAlertsChannelsUnreadable")])
    board.series("Dead letters sent again", "By the worker that had them, whichever worker delivers them.",
                 [(f"sum by (instance) (rate(interven_alerts_replayed_total{{{POOL}}}[$__rate_interval]))", "{{instance}}")], "cps")
    board.series("Decisions in, by worker", "Decisions read from the broker. All workers consume one queue, so these are much "
                                            "the same.",
                 [(f"sum by (instance) "
                   f"(rate(interven_alerts_decisions_total{{{POOL}}}[$__rate_interval]))", "{{instance}}")], "cps")
    board.series("Deliveries by worker", "Told or dead. Limited channels are delivered by their lane's owner alone, so these "
                                         "may differ.",
                 [(f"sum by (instance) "
                   f"(rate(interven_alerts_deliveries_total{{{POOL}}}[$__rate_interval]))", "{{instance}}")], "cps")
    board.series("CPU", "Cores in use.", [(f"rate(process_cpu_seconds_total{{{POOL}}}[$__rate_interval])", "{{instance}}")], "short")
    board.series("Memory", "Resident memory. It depends on the number of channels and on `prefetch`, and should not grow for "
                           "hours.",
                 [(f"process_resident_memory_bytes{{{POOL}}}", "{{instance}}")], "bytes")
    board.series("Open files", "Connections, and the files of the stores, as a part of the limit.",
                 [(f"process_open_fds{{{POOL}}} / process_max_fds{{{POOL}}}", "{{instance}}")], "percentunit", lines=[(0.8, RED)])
    board.series("Time since the start", "A line that falls to zero again and again is a worker that does not stay up.",
                 [(f"time() - process_start_time_seconds{{{POOL}}}", "{{instance}}")], "s", links=[runbook("IntervenAlertsWorkerRestarting")])
    board.series("Dead letters, by worker", "Each worker has a store of its own, on its own disk: this is where to look for "
                                            "them.",
                 [(f"sum by (instance) (interven_alerts_dead_letters{{{POOL}}})", "{{instance}}")], "short",
                 links=[runbook("IntervenAlertsDeadLettersLeft")])
    board.series("Messages that are no decisions", "Kept as dead letters, `malformed`, with the bytes as they came.",
                 [(f"sum by (instance) "
                   f"(rate(interven_alerts_malformed_total{{{POOL}}}[$__rate_interval]))", "{{instance}}")], "cps",
                 links=[runbook("IntervenAlertsMessagesUnreadable")])

    board.row("The way to the broker")
    board.series("Connected", "1 while a worker is connected.", [(f"interven_alerts_broker_connected{{{POOL}}}", "{{instance}}")], "none",
                 links=[runbook("IntervenAlertsBrokerDown"), runbook("IntervenAlertsWorkerWithoutBroker")])
    board.series("Connections made again", "Within 15 minutes. The line is where IntervenAlertsBrokerFlapping begins.",
                 [(f"increase(interven_alerts_broker_reconnects_total{{{POOL}}}[15m])", "{{instance}}")], "short", lines=[(5, RED)],
                 links=[runbook("IntervenAlertsBrokerFlapping")])
    board.series("Decisions that are not settled",
                 "Read and not acknowledged yet, at least, as a part of `prefetch`. At 1, a worker takes in no more than it settles. "
                 "The line is where IntervenAlertsAcksNearPrefetch begins.",
                 [(f"clamp_min(worker:interven_alerts_decisions_held:min{{{POOL}}}, 0) "
                   f"/ on (job, namespace, instance) interven_alerts_prefetch{{{POOL}}}", "{{instance}}")],
                 "percentunit", lines=[(0.9, RED)], links=[runbook("IntervenAlertsAcksNearPrefetch")])
    board.series("Decisions that wait on the broker",
                 "Not settled: read by no worker yet, or by the one that has most of them.",
                 [(f"max(interven_alerts_decisions_waiting{{{POOL}}})", "decisions")], "short",
                 links=[runbook("IntervenAlertsDecisionsNotTaken"), runbook("IntervenAlertsAcksNearPrefetch")])
    board.series("Approvals: from decision to first answer", "By the worker that wrote the answer down. Most approvals expire "
                                                             "after ten minutes.",
                 [(f"histogram_quantile({q}, sum by (le) "
                   f"(rate(interven_alerts_approval_latency_seconds_bucket{{{POOL}}}[1h])))", name)
                  for q, name in ((0.5, "half"), (0.9, "90 %"))], "s", lines=[(300, RED)], links=[runbook("IntervenAlertsApprovalsSlow")])
    board.series("Answers that the firewall was not told", "Approved or denied, and not published yet: an agent waits for each.",
                 [(f"max(interven_alerts_answers_waiting{{{POOL}}})", "answers")], "short",
                 links=[runbook("IntervenAlertsAnswersUnpublished")])

    board.row("RabbitMQ itself (its plugin rabbitmq_prometheus, at /metrics/per-object)")
    queues = 'queue=~".+[.]alerts[.].+"'
    board.series("Messages that wait, by queue", "`...alerts.decisions`: read by no worker yet. `...lane.*`: wait for a "
                                                 "channel. `...dead`: no store takes them.",
                 [(f"sum by (queue) (rabbitmq_queue_messages_ready{{{queues}}})", "{{queue}}")], "short")
    board.series("Messages handed out and not acknowledged, by queue", "Of decisions: up to `prefetch` for each worker.",
                 [(f"sum by (queue) (rabbitmq_queue_messages_unacked{{{queues}}})", "{{queue}}")], "short")
    board.series("Consumers, by queue", "Of decisions: one for each worker. A lane's queue counts the workers that stand by, "
                                        "too; one of them is active.",
                 [(f"sum by (queue) (rabbitmq_queue_consumers{{{queues}}})", "{{queue}}")], "short")
    board.series("Free disk of the broker's nodes", "Below `disk_free_limit` RabbitMQ takes no more messages, and publishers "
                                                    "wait.",
                 [("rabbitmq_disk_space_available_bytes", "{{instance}}")], "bytes")
    return board


def main():
    wrong = []
    for name, build in (("overview", overview), ("channel", channel), ("workers", workers)):
        path, text = HERE / f"{name}.json", build().json()
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                wrong.append(path)
        else:
            path.write_text(text)
    for path in wrong:
        print(f"error: {path} is not what build.py writes\nhint: run deploy/grafana/build.py, and change that script and not "
              f"the file",
              file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
