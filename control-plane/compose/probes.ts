/** Probes that the agent makes itself: `x-http`, `x-tcp` and `x-grpc` of a health check. */
import type { GrpcProbe, HttpProbe, StatusRange, TcpProbe } from '#proto/model/probe.ts';
import { type Findings, refuse } from './diagnostic.ts';
import { readInteger, readKeys, readOneOf, readPairs, readText } from './read.ts';
import type { Tree } from './tree.ts';

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/** As kubelets see it: an answer that leads elsewhere is one. */
const goodStatuses: readonly StatusRange[] = [{ from: 200, to: 399 }];

export function readHttpProbe(findings: Findings, tree: Tree): HttpProbe {
  const probe: Mutable<HttpProbe> = { port: 0, path: '/', scheme: 'http', statuses: goodStatuses, headers: {} };
  readKeys(findings, tree, 'x-http', probe, {
    port: readPort(findings),
    path: (probe, value) => {
      const path = readText(findings, value) ?? '/';
      if (!/^\/[\x21-\x7e]*$/.test(path)) refuse(findings, value, `"${path}" is not a path`, 'start it with /');
      probe.path = path;
    },
    scheme: (probe, value) => {
      probe.scheme = readOneOf(findings, value, ['http', 'https']) ?? 'http';
    },
    status: (probe, value) => {
      const items = value.kind === 'list' ? value.items : [value];
      probe.statuses = items.flatMap((item) => readStatuses(findings, item) ?? []);
    },
    headers: (probe, value) => {
      probe.headers = readHeaders(findings, value);
    },
  });
  return withPort(findings, tree, probe);
}

export function readTcpProbe(findings: Findings, tree: Tree): TcpProbe {
  const probe: Mutable<TcpProbe> = { port: 0 };
  readKeys(findings, tree, 'x-tcp', probe, { port: readPort(findings) });
  return withPort(findings, tree, probe);
}

export function readGrpcProbe(findings: Findings, tree: Tree): GrpcProbe {
  const probe: Mutable<GrpcProbe> = { port: 0, service: '' };
  readKeys(findings, tree, 'x-grpc', probe, {
    port: readPort(findings),
    service: (probe, value) => {
      probe.service = readText(findings, value) ?? '';
    },
  });
  return withPort(findings, tree, probe);
}

function readPort(findings: Findings) {
  return (probe: { port: number }, value: Tree) => {
    probe.port = readInteger(findings, value, 1, 65_535) ?? -1;
  };
}

function withPort<T extends { readonly port: number }>(findings: Findings, tree: Tree, probe: T): T {
  if (probe.port === 0) refuse(findings, tree, 'this probe has no port', 'add port:');
  return probe;
}

/** `200`, or `200-299`. */
function readStatuses(findings: Findings, tree: Tree): StatusRange | undefined {
  const text = tree.kind === 'scalar' ? tree.source : '';
  const [, from, to = from] = /^(\d{3})(?:-(\d{3}))?$/.exec(text) ?? [];
  const range = { from: Number(from), to: Number(to) };
  if (range.from >= 100 && range.from <= range.to && range.to <= 599) return range;
  return refuse(findings, tree, `"${text}" is no status`, 'write 200, or 200-299');
}

function readHeaders(findings: Findings, tree: Tree): Readonly<Record<string, string>> {
  const pairs = readPairs(findings, tree, /:\s*/).flatMap(({ name, value = '', tree: place }) => {
    if (/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) && !/[\0\r\n]/.test(value)) return [[name, value.trim()] as const];
    return refuse(findings, place, `"${name}" is not a header`, 'write Name: value') ?? [];
  });
  return Object.fromEntries(pairs);
}
