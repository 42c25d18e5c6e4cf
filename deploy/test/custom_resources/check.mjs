// Holds the custom resources of rendered manifests against the schemas of KEDA and of the Prometheus Operator.
//
//   node check.mjs RENDERED.yaml...     exit with 1 and every fault
//
// Two looks at each: the values, by the schema of its definition; and the keys, by the types that are made of it. A cluster drops a key that
// its schema does not know, without a word, so that a limit with a typing error in its name is no limit.
//
// It is run where package.json is installed: tests/run copies this folder to target/tests-npm for that.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { TriggerAuthentication } from "@kubernetes-models/keda/keda.sh/v1alpha1/TriggerAuthentication";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import ts from "typescript";
import { parseAllDocuments } from "yaml";

const KEDA = ["keda.sh/v1alpha1", "@kubernetes-models/keda"];
const OPERATOR = ["monitoring.coreos.com/v1", "@kubernetes-models/prometheus-operator"];
const KINDS = {
  ScaledObject: [ScaledObject, ...KEDA],
  TriggerAuthentication: [TriggerAuthentication, ...KEDA],
  PodMonitor: [PodMonitor, ...OPERATOR],
  PrometheusRule: [PrometheusRule, ...OPERATOR],
};
// What Kubernetes has of its own is another tool's.
const OWN = /^(v1|apps\/v1|policy\/v1|networking\.k8s\.io\/v1)$/;

const here = dirname(fileURLToPath(import.meta.url));
const faults = [];
const resources = [];

for (const path of process.argv.slice(2)) {
  for (const document of parseAllDocuments(readFileSync(path, "utf8"))) {
    const resource = document.toJS();
    if (!resource || OWN.test(resource.apiVersion)) continue;
    const known = KINDS[resource.kind];
    const where = `${path}: ${resource.kind} ${resource.metadata.name}`;
    if (!known || known[1] !== resource.apiVersion) {
      faults.push(`${where}: there is no schema of ${resource.apiVersion} here`);
      continue;
    }
    try {
      new known[0](resource).validate();
    } catch (error) {
      faults.push(`${where}: ${error.message}`);
    }
    resources.push({ where, resource, module: `${known[2]}/${known[1]}/${resource.kind}` });
  }
}

// One module of constants, each of the type of its kind: the compiler refuses a key that the type does not have.
const file = join(here, "resources.ts");
const text = resources
  .map(({ resource, module }, at) =>
    `export const x${at}: import("${module}").I${resource.kind} = ${JSON.stringify(resource)};`)
  .join("\n");
const options = {
  noEmit: true,
  strict: true,
  skipLibCheck: true,
  types: [],
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
};
const host = ts.createCompilerHost(options);
const { getSourceFile, fileExists, readFile } = host;
host.fileExists = (name) => name === file || fileExists(name);
host.readFile = (name) => (name === file ? text : readFile(name));
host.getSourceFile = (name, ...rest) =>
  name === file ? ts.createSourceFile(name, text, ...rest) : getSourceFile(name, ...rest);
for (const diagnostic of ts.getPreEmitDiagnostics(ts.createProgram([file], options, host))) {
  const at = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start).line;
  const where = resources[at]?.where ?? "the types";
  faults.push(`${where}: ${ts.flattenDiagnosticMessageText(diagnostic.messageText, " ")}`);
}

if (resources.length === 0) faults.push("there is no custom resource in these files");
for (const fault of new Set(faults)) console.error(`error: ${fault}`);
process.exitCode = faults.length > 0 ? 1 : 0;
