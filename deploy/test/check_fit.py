#!/usr/bin/env python3
"""Holds the files of deploy/ against each other: what one says must be what the next one expects.

    deploy/test/check_fit.py RENDERED.yaml...     exit with 1 and every fault at once

RENDERED are what `kubectl kustomize` makes of the base and of an overlay. Schemas see one file each; they do not see that a probe asks
a port which nobody opens, that a variable of the configuration is set nowhere, or that a stop is cut short.

 1. Kubernetes: selectors find the workers, ports and Services that are named are there, the configuration's ports, variables and files
    are the container's, every key of a Secret is one that the example says how to make, the network policy lets out to the broker, to
    every endpoint and between workers, KEDA looks at the queue that the workers consume.
 2. Compose: the same of variables, hosts and ports; .env.example asks for what is needed and for nothing else.
 3. Everywhere: the time to stop is longer than the configuration's grace, and the version is Cargo.toml's. What the head of the unit
    says to run as the service has the service's own settings.

Python's standard library and PyYAML.
"""

import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
# What comes after `[shutdown] grace` (`stop` in src/app/mod.rs): 2 s at most for the records of what became of deliveries
# (RECORDS_MAX), 5 for the last acknowledgements and 5 for the last requests (CLOSE_MAX), and then the store, which has no limit.
AFTER_GRACE = 20

faults = []


def expect(true, where, problem):
    if not true:
        faults.append(f"{where}: {problem}")


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m|)", str(text)).groups()
    return int(number) * (60 if unit == "m" else 1)


def port_of(address):
    return int(address.rpartition(":")[2])


def strings(value, key=""):
    """Each string of a configuration with its key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from strings(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner, key)
    elif isinstance(value, str):
        yield key, value


def variables(text):
    return set(re.findall(r"(?<!\$)\$\{(\w+)\}", text))


def selects(selector, labels):
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def port_named(rule_port, ports):
    """The number that a port of a rule means, which may be a name of the container's."""
    return ports.get(rule_port, rule_port)


def kubernetes(path):
    where = path.name
    found = [document for document in yaml.safe_load_all(path.read_text()) if document]
    by_kind = {}
    for document in found:
        by_kind.setdefault(document["kind"], []).append(document)

    (workers,) = by_kind["StatefulSet"]
    pod = workers["spec"]["template"]
    labels = pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    services = {service["metadata"]["name"]: service for service in by_kind["Service"]}

    # Who finds the workers.
    expect(selects(workers["spec"]["selector"]["matchLabels"], labels), where, "the StatefulSet does not select its own pods")
    for service in services.values():
        name = service["metadata"]["name"]
        expect(selects(service["spec"]["selector"], labels), where, f"the Service {name} selects no worker")
        for port in service["spec"]["ports"]:
            expect(port_named(port["targetPort"], ports) in ports.values(), where, f"the Service {name} leads to no port of the workers")
    for kind in ("PodDisruptionBudget", "PodMonitor", "NetworkPolicy"):
        for document in by_kind.get(kind, []):
            selector = document["spec"].get("selector") or document["spec"].get("podSelector")
            expect(selects(selector["matchLabels"], labels), where, f"the {kind} selects no worker")
    for monitor in by_kind.get("PodMonitor", []):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            expect(endpoint["port"] in ports, where, f"the PodMonitor asks at `{endpoint['port']}`, which is no port of the workers")
        expect(labels.get(monitor["spec"]["jobLabel"]) == "interven-alerts", where, "the job is not `interven-alerts`, which rules go by")
    headless = services.get(workers["spec"]["serviceName"])
    expect(headless and headless["spec"].get("clusterIP") == "None", where, "serviceName is no headless Service")
    for ingress in by_kind.get("Ingress", []):
        for rule in ingress["spec"]["rules"]:
            for target in rule["http"]["paths"]:
                service = target["backend"]["service"]
                known = services.get(service["name"], {"spec": {"ports": []}})["spec"]["ports"]
                expect(service["port"].get("name") in {port["name"] for port in known}, where, "the Ingress leads nowhere")

    # The configuration and its container.
    (config_map,) = by_kind["ConfigMap"]
    text = config_map["data"]["interven-alerts.toml"]
    config = tomllib.loads(text)
    expect(port_of(config["http"]["listen"]) == ports["http"], where, "the port `http` is not the configuration's")
    expect(port_of(config["http"]["metrics_listen"]) == ports["metrics"], where, "the port `metrics` is not the configuration's")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        expect(asked["port"] == "metrics", where, f"the {probe} asks at `{asked['port']}`")
        right = "/readyz" if probe == "readinessProbe" else "/livez"
        expect(asked["path"] == right, where, f"the {probe} asks {asked['path']}")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    expect(mounts["data"] == config["data_dir"], where, "data_dir is not on the volume")
    volume_claims = {claim["metadata"]["name"] for claim in workers["spec"]["volumeClaimTemplates"]}
    expect(set(mounts) == set(volumes) | volume_claims, where, "volumes and mounts are not the same")
    environment = {entry["name"] for entry in container["env"]}
    for name in variables(text):
        expect(name in environment, where, f"the configuration takes ${{{name}}}, and the container has no such variable")
    expect("INTERVEN_ALERTS_KEY" in environment, where, "the pool has no INTERVEN_ALERTS_KEY")

    # Secrets: what is used is what the example says how to make.
    said = (DEPLOY / "kubernetes/overlays/example/kustomization.yaml").read_text()
    made = {}
    for name, keys in re.findall(r"create secret generic (\S+) \\\n((?:#\s+--from-literal=.*\n)+)", said):
        made[name] = set(re.findall(r"--from-literal=([\w.-]+)=", keys))
    used = set()
    for entry in container["env"]:
        reference = entry.get("valueFrom", {}).get("secretKeyRef")
        expect(reference, where, f"the variable {entry['name']} does not come from a Secret")
        if reference:
            used.add((reference["name"], reference["key"]))
    for volume in volumes.values():
        if "secret" in volume:
            at = mounts[volume["name"]] + "/"
            named = {value.removeprefix(at) for key, value in strings(config) if key.endswith("_file")}
            expect(not any(name.startswith("/") for name in named), where, f"a file of the configuration is not below {at}")
            used |= {(volume["secret"]["secretName"], name) for name in named}
    for authentication in by_kind.get("TriggerAuthentication", []):
        used |= {(target["name"], target["key"]) for target in authentication["spec"]["secretTargetRef"]}
    for name, key in used:
        expect(key in made.get(name, set()), where, f"nobody says how to make `{key}` of the Secret {name}")

    # KEDA.
    for scaled in by_kind.get("ScaledObject", []):
        target = scaled["spec"]["scaleTargetRef"]
        expect((target["kind"], target["name"]) == ("StatefulSet", workers["metadata"]["name"]), where, "KEDA scales something else")
        expect("replicas" not in workers["spec"], where, "an apply sets back the replicas that KEDA has set")
        (trigger,) = scaled["spec"]["triggers"]
        queue = config["broker"].get("prefix", "interven") + ".alerts.decisions"
        expect(trigger["metadata"]["queueName"] == queue, where, f"KEDA does not look at {queue}")
        names = {document["metadata"]["name"] for document in by_kind["TriggerAuthentication"]}
        expect(trigger["authenticationRef"]["name"] in names, where, "KEDA has no authentication of this name")

    # The network: out to the broker and every endpoint, and between workers.
    (policy,) = by_kind["NetworkPolicy"]
    egress, ingress = policy["spec"]["egress"], policy["spec"]["ingress"]
    out = {port_named(port["port"], ports) for rule in egress for port in rule["ports"]}
    urls = [value for key, value in strings(config) if key in {"url", "urls", "peers"}]
    for url in urls:
        parts = urlsplit(re.sub(r"\$\{\w+\}", "x", url))
        port = parts.port or {"amqp": 5672, "amqps": 5671, "http": 80, "https": 443}[parts.scheme]
        expect(port in out, where, f"the network policy lets nobody out to port {port} of {parts.hostname}")
    expect({53, 443} <= out, where, "the network policy lets nobody out to DNS and HTTPS")

    def between(rules, side):
        for rule in rules:
            if ports["http"] in {port_named(port["port"], ports) for port in rule["ports"]}:
                yield from (peer["podSelector"].get("matchLabels", {}) for peer in rule[side] if set(peer) == {"podSelector"})

    for rules, side in ((egress, "to"), (ingress, "from")):
        expect(any(selects(peer, labels) for peer in between(rules, side)), where, f"workers do not reach each other ({side})")
    for peer in config["http"].get("peers", []):
        host = urlsplit(peer)
        expect(host.hostname == workers["spec"]["serviceName"] and host.port == ports["http"], where, f"no worker listens at {peer}")

    # Time to stop.
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = pause + seconds(config["shutdown"]["grace"]) + AFTER_GRACE
    expect(pod["spec"]["terminationGracePeriodSeconds"] >= needed, where, f"terminationGracePeriodSeconds is less than {needed}")
    expect(container["image"].endswith(f":{VERSION}"), where, f"the image is not of version {VERSION}")


def compose():
    where = "compose.yaml"
    text = (DEPLOY / "compose/compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    toml = (DEPLOY / "compose/config/interven-alerts.toml").read_text()
    config = tomllib.loads(toml)
    workers = {name: service for name, service in services.items() if name.startswith("worker-")}
    metrics = port_of(config["http"]["metrics_listen"])

    asked = set(re.findall(r"\$\{(\w+):\?", text))
    offered = set(re.findall(r"^(\w+)=$", (DEPLOY / "compose/.env.example").read_text(), flags=re.M))
    expect(asked == offered, where, f".env.example and it do not ask for the same: {sorted(asked ^ offered)}")
    hosts = set(services)
    for service in services.values():
        networks = service["networks"] if isinstance(service["networks"], dict) else {}
        hosts |= {alias for network in networks.values() if network for alias in network.get("aliases", [])}
    for url in [config["broker"]["url"], *config["http"].get("peers", [])]:
        expect(urlsplit(url).hostname in hosts, where, f"nobody is called {urlsplit(url).hostname}")
    for name, worker in workers.items():
        for variable in variables(toml) | {"INTERVEN_ALERTS_KEY"}:
            expect(variable in worker["environment"], where, f"{name} has no {variable}")
        stop = seconds(worker["stop_grace_period"])
        grace = seconds(config.get("shutdown", {}).get("grace", "25s"))
        expect(stop >= grace + AFTER_GRACE, where, f"{name} is stopped before its grace is over")
        for published in worker.get("ports", []):
            expect(port_of(published) == port_of(config["http"]["listen"]), where, f"{name} publishes a port that nobody listens at")
    expect(len({volume for worker in workers.values() for volume in worker["volumes"] if "-data:" in volume}) == len(workers), where,
           "two workers share a volume")
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            expect(not source.startswith(".") or (DEPLOY / "compose" / source).exists(), where, f"{source} is not there")
    expect(f":-{VERSION}}}" in text, where, f"the image is not of version {VERSION}")

    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    scraped = jobs["interven-alerts"]["dns_sd_configs"][0]
    expect(scraped["port"] == metrics and set(scraped["names"]) <= hosts, "prometheus.yml", "it does not find the workers of compose")
    for target in jobs["rabbitmq"]["static_configs"][0]["targets"]:
        expect(target.partition(":")[0] in hosts, "prometheus.yml", f"{target} is nobody in compose")
    for source in yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]:
        expect(urlsplit(source["url"]).hostname in hosts, "grafana", f"{source['url']} is nobody in compose")
    return metrics


def the_rest(metrics):
    dockerfile = (DEPLOY / "docker/Dockerfile").read_text()
    expect(f"ARG VERSION={VERSION}\n" in dockerfile, "Dockerfile", f"its version is not {VERSION}")
    expect(f"/dev/tcp/127.0.0.1/{metrics} " in dockerfile, "Dockerfile", f"its health check does not ask at {metrics}")
    for copied in re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, flags=re.M):
        ignored = (DEPLOY / "docker/Dockerfile.dockerignore").read_text().splitlines()
        for source in copied.split():
            expect((ROOT / source).exists() and f"!{source}" in ignored, "Dockerfile", f"the build cannot see {source}")
    unit = (DEPLOY / "systemd/interven-alerts.service").read_text()
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, flags=re.M)[1])
    expect(stop >= 25 + AFTER_GRACE, "interven-alerts.service", "TimeoutStopSec is shorter than the grace and what comes after it")
    # A command that an operator runs as the service must find what the service finds: the same user, directory, secrets, variables.
    head, settings = unit.partition("\n[Unit]\n")[::2]
    said = re.sub(r" \\\n#", "", head)
    for command in re.findall(r"systemd-run .*", said):
        given = re.findall(r"-p (\S+)", command)
        expect(given, "interven-alerts.service", f"its head runs something as nobody in particular: {command}")
        for setting in given:
            expect(f"\n{setting}\n" in settings, "interven-alerts.service", f"its head says {setting}, which the service has not")
    tool = (DEPLOY / "kubernetes/tools/dead-letters-pod.yaml").read_text()
    expect(f"interven-alerts:{VERSION}\n" in tool, "dead-letters-pod.yaml", f"its image is not of version {VERSION}")


def main():
    for path in sys.argv[1:]:
        kubernetes(Path(path))
    the_rest(compose())
    for fault in sorted(set(faults)):
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
