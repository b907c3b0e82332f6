/** Compose files to service specs, in one pure step: specs, or what is still needed for them, or what is wrong and where. */
import { qualifiedName } from '#proto/model/ids.ts';
import type { AllowFrom, NetworkAttachment, NetworkMode } from '#proto/model/network.ts';
import { containerSpec, defaults, type Port, type ServiceSpec, taskTemplate } from '#proto/model/service.ts';
import { isName, specProblems } from '#proto/model/validate.ts';
import {
  refuseSharedAddresses,
  refuseSharedNetworks,
  refuseSharedPorts,
  refuseUnknownServices,
  usedNetworks,
} from './between-services.ts';
import { type Diagnostic, type Findings, type Place, refuse, warn } from './diagnostic.ts';
import { type DotenvEntry, dotenvVariables, evaluateDotenv, parseDotenv } from './dotenv.ts';
import { type Draft, emptyDraft, type Said } from './draft.ts';
import { expand, parseTemplate, variablesOf } from './interpolation.ts';
import { merge } from './merge.ts';
import { readVolumes } from './mounts.ts';
import { type DeclaredNetwork, type DeclaredNetworks, readNetworks, refuseTwoOfOneName } from './networks.ts';
import { isNull, readKeys } from './read.ts';
import type { ResolvedService } from './resolved-service.ts';
import { adviseService, laterServiceKeys, serviceKeys } from './service-keys.ts';
import { child, type MapTree, mapScalars, parseTree, type Tree } from './tree.ts';

export interface ResolveInput {
  /** Compose files in the order given; later ones are laid over earlier ones. */
  readonly files: readonly { readonly path: string; readonly text: string }[];
  /** Other files that were asked for; undefined: there is none. Keyed as asked for. */
  readonly supplied: ReadonlyMap<string, string | undefined>;
  /** Variables that were asked for; undefined: not set. */
  readonly variables: ReadonlyMap<string, string | undefined>;
  /** Overrides the project's name; empty: the file's. */
  readonly project: string;
  /** Base name of the first file's directory: the default project. */
  readonly directory: string;
  /** That directory's absolute path, for relative bind sources; empty: unknown. */
  readonly root: string;
  /** Nothing more will be supplied: what is not there is not set. */
  readonly answered: boolean;
}

export type Resolution =
  | {
      readonly kind: 'specs';
      readonly project: string;
      readonly services: readonly ResolvedService[];
      /** Those that a service is on. */
      readonly networks: readonly DeclaredNetwork[];
      readonly warnings: readonly Diagnostic[];
    }
  | { readonly kind: 'needs'; readonly files: readonly string[]; readonly variables: readonly string[] }
  | { readonly kind: 'errors'; readonly errors: readonly Diagnostic[]; readonly warnings: readonly Diagnostic[] };

const dotenvPath = '.env';
const projectVariable = 'COMPOSE_PROJECT_NAME';

/** Keys of a Compose file that are not honoured yet. */
const laterFileKeys: Readonly<Record<string, string>> = {
  configs: 'put the file into the image, or use a bind mount',
  include: 'name all files with -f',
  models: 'remove it',
  secrets: 'use environment, or a bind mount',
};

export function resolve(input: ResolveInput): Resolution {
  const findings: Findings = { errors: [], warnings: [] };
  const trees = input.files.flatMap((file) => {
    const tree = parseTree(file.path, file.text, findings);
    if (!tree && findings.errors.length === 0)
      refuse(findings, startOf(file.path), 'the file is empty', 'declare services:');
    return tree ? [tree] : [];
  });
  if (findings.errors.length > 0) return failed(findings);
  if (trees.length === 0)
    return failed({
      errors: [{ ...startOf('').at, path: '', message: 'no Compose file was given', remedy: 'name one with -f' }],
      warnings: [],
    });

  const wanted = new Wanted(input);
  for (const name of [projectVariable, ...trees.flatMap(templateVariables), ...trees.flatMap(bareNames)])
    wanted.variable(name);
  const dotenvText = wanted.file(dotenvPath);
  for (const path of trees.flatMap(plainEnvFiles)) wanted.file(path);
  const dotenvEntries = dotenvText === undefined ? [] : parseDotenv(dotenvPath, dotenvText, '', findings);
  for (const name of dotenvVariables(dotenvEntries)) wanted.variable(name);
  if (wanted.any) return wanted.needs();

  const clientVariable = (name: string) => input.variables.get(name);
  const dotenv = evaluateDotenv(dotenvEntries, clientVariable, findings);
  const lookup = (name: string) => clientVariable(name) ?? dotenv.get(name);
  const merged = trees.map((tree) => interpolated(tree, lookup, findings)).reduce(merge);
  if (findings.errors.length > 0) return failed(findings);
  return build(input, merged, lookup, wanted, findings);
}

function build(input: ResolveInput, file: Tree, lookup: Lookup, wanted: Wanted, findings: Findings): Resolution {
  if (file.kind !== 'map') {
    refuse(findings, file, 'a Compose file is a map', 'declare services:');
    return failed(findings);
  }
  const project = projectName(input, file, lookup, findings);
  const { drafts, networks } = readFile(findings, file, project);
  if (drafts.length === 0 && findings.errors.length === 0)
    refuse(findings, file, 'there are no services', 'declare services:');

  const environments = drafts.map((draft) => environmentOf(draft, lookup, wanted));
  if (wanted.any) return wanted.needs();
  refuseUnknownServices(drafts);
  const services = drafts.map((draft, index) => finish(draft, project, environments[index]!, input.root, networks));
  refuseSharedPorts(services, findings);
  refuseSharedNetworks(services, findings);
  refuseSharedAddresses(services, findings);
  if (findings.errors.length > 0) return failed(findings);
  const resolved = services.filter((service) => service !== undefined);
  return {
    kind: 'specs',
    project,
    services: resolved,
    networks: usedNetworks(resolved, networks),
    warnings: findings.warnings,
  };
}

/** What the file's keys say, before anything is concluded from it. */
export function readFile(
  findings: Findings,
  file: MapTree,
  project: string,
): { readonly drafts: readonly Draft[]; readonly networks: DeclaredNetworks } {
  const networks = readNetworks(findings, child(file, 'networks'), project, child(file, 'services') ?? file);
  refuseTwoOfOneName(findings, networks);
  const context = { volumes: readVolumes(findings, child(file, 'volumes'), project), networks };
  const drafts: Draft[] = [];
  readKeys(
    findings,
    file,
    'a Compose file',
    drafts,
    {
      name: () => {},
      version: (_, value) => warn(findings, value, 'version: means nothing any more', 'remove it'),
      volumes: () => {},
      networks: () => {},
      services: (drafts, services) => {
        if (services.kind !== 'map')
          return refuse(findings, services, 'services must be a map', 'write services: { web: { image: … } }');
        for (const [name, { keyAt, value }] of services.entries) {
          if (value.tag === 'reset' || name.startsWith('x-')) continue;
          const draft = emptyDraft(findings, name, { at: keyAt, path: `services.${name}` });
          readKeys(findings, value, `service ${name}`, draft, serviceKeys(findings, context), laterServiceKeys);
          if (isNull(value)) refuse(findings, draft.place, `service ${name} is empty`, 'add image:');
          drafts.push(draft);
        }
      },
    },
    laterFileKeys,
  );
  return { drafts, networks };
}

type Lookup = (name: string) => string | undefined;

/** What the client has not told yet. */
class Wanted {
  readonly #input: ResolveInput;
  readonly #files = new Set<string>();
  readonly #variables = new Set<string>();

  constructor(input: ResolveInput) {
    this.#input = input;
  }
  get any(): boolean {
    return this.#files.size + this.#variables.size > 0;
  }
  variable(name: string): void {
    if (!this.#input.answered && !this.#input.variables.has(name)) this.#variables.add(name);
  }
  /** The file's text; undefined where there is none, or none yet. */
  file(path: string): string | undefined {
    if (!this.#input.answered && !this.#input.supplied.has(path)) this.#files.add(path);
    return this.#input.supplied.get(path);
  }
  needs(): Resolution {
    return { kind: 'needs', files: [...this.#files], variables: [...this.#variables].sort() };
  }
}

function failed(findings: Findings): Resolution {
  const errors = [...findings.errors].sort((a, b) => (a.file === b.file ? a.line - b.line || a.column - b.column : 0));
  return { kind: 'errors', errors, warnings: findings.warnings };
}

function startOf(file: string): Place {
  return { at: { file, line: 1, column: 1 }, path: '' };
}

function templateVariables(tree: Tree): string[] {
  const names: string[] = [];
  mapScalars(withoutExtensions(tree), (scalar) => {
    const pieces = typeof scalar.value === 'string' ? parseTemplate(scalar.value) : [];
    if (!('message' in pieces)) names.push(...variablesOf(pieces));
    return scalar;
  });
  return names;
}

/** Names that `environment:` takes from the client, as far as they can be seen before interpolation. */
function bareNames(tree: Tree): string[] {
  return servicesOf(tree).flatMap((service) => {
    const environment = child(service, 'environment');
    if (environment?.kind === 'list')
      return environment.items.flatMap((item) =>
        item.kind === 'scalar' && !/[=$]/.test(item.source) ? [item.source] : [],
      );
    if (environment?.kind !== 'map') return [];
    return [...environment.entries].flatMap(([name, { value }]) => (isNull(value) ? [name] : []));
  });
}

function plainEnvFiles(tree: Tree): string[] {
  return servicesOf(tree).flatMap((service) => {
    const files = child(service, 'env_file');
    return (files?.kind === 'list' ? files.items : files ? [files] : []).flatMap((item) => {
      const path = item.kind === 'map' ? child(item, 'path') : item;
      return path?.kind === 'scalar' && path.source && !path.source.includes('$') ? [path.source] : [];
    });
  });
}

function servicesOf(tree: Tree): Tree[] {
  const services = child(tree, 'services');
  return services?.kind === 'map' ? [...services.entries.values()].map((entry) => entry.value) : [];
}

/** Extensions at the top are templates for anchors: their variables count where they are used. */
function withoutExtensions(tree: Tree): Tree {
  if (tree.kind !== 'map') return tree;
  return { ...tree, entries: new Map([...tree.entries].filter(([key]) => !key.startsWith('x-'))) };
}

function interpolated(tree: Tree, lookup: Lookup, findings: Findings): Tree {
  return mapScalars(withoutExtensions(tree), (scalar) => {
    if (typeof scalar.value !== 'string' || !scalar.value.includes('$')) return scalar;
    const pieces = parseTemplate(scalar.value);
    if ('message' in pieces) {
      refuse(findings, scalar, pieces.message, 'write $$ for a dollar sign');
      return scalar;
    }
    const { text, unset, failure } = expand(pieces, lookup);
    if (failure !== undefined) refuse(findings, scalar, failure, 'set it in the environment or in .env');
    for (const name of new Set(unset))
      warn(findings, scalar, `variable ${name} is not set: it is empty here`, `set it, or write \${${name}:-}`);
    return { ...scalar, value: text, source: text };
  });
}

function projectName(input: ResolveInput, file: MapTree, lookup: Lookup, findings: Findings): string {
  const named = child(file, 'name');
  const place = named ?? startOf(input.files[0]?.path ?? '');
  const explicit = input.project || lookup(projectVariable) || (named?.kind === 'scalar' ? named.source : '');
  const name =
    explicit ||
    input.directory
      .toLowerCase()
      .replace(/[^a-z0-9_-]/g, '')
      .replace(/^[_-]+|[_-]+$/g, '');
  if (!isName(name))
    refuse(findings, place, `"${name}" cannot name a project`, 'set name: to a-z, 0-9, - and _, at most 63 characters');
  return name;
}

/** The service's variables in order: its env files', then its own. */
function environmentOf(draft: Draft, lookup: Lookup, wanted: Wanted): readonly string[] {
  const { findings } = draft;
  const values = new Map<string, string>();
  for (const file of draft.envFiles) {
    const text = wanted.file(file.path);
    if (text === undefined) {
      if (file.required && !wanted.any)
        refuse(findings, file.place, `env_file ${file.path} is not there`, 'create it, or add required: false');
      continue;
    }
    const silent: Findings = { errors: [], warnings: [] };
    const entries: readonly DotenvEntry[] = parseDotenv(file.path, text, file.format, silent);
    for (const name of dotenvVariables(entries)) wanted.variable(name);
    if (wanted.any) continue;
    findings.errors.push(...silent.errors);
    for (const [name, value] of evaluateDotenv(entries, lookup, findings)) values.set(name, value);
  }
  for (const { name, value, tree } of draft.environment) {
    if (value === undefined) wanted.variable(name);
    const said = value ?? lookup(name);
    if (/[\s\0]/.test(name)) refuse(findings, tree, `"${name}" cannot name a variable`, 'remove the space');
    if (said !== undefined) values.set(name, said);
    else values.delete(name);
  }
  return [...values].map(([name, value]) => `${name}=${value}`);
}

function finish(
  draft: Draft,
  project: string,
  env: readonly string[],
  root: string,
  networks: DeclaredNetworks,
): ResolvedService | undefined {
  const { findings, place, placement } = draft;
  const before = findings.errors.length;
  adviseService(draft, place);
  const mode = draft.mode?.value ?? 'replicated';
  if (mode === 'global' && draft.replicas)
    refuse(
      findings,
      draft.replicas.place,
      'a global service has one task on each node, not replicas',
      'remove replicas, or use mode: replicated',
    );
  if (mode === 'global' && draft.volumeLoss)
    refuse(
      findings,
      draft.volumeLoss.place,
      'a global service has a volume of its own on each node: none moves',
      'remove x-volume-loss',
    );
  if (!draft.image) return refuse(findings, place, `service ${draft.name} has no image`, 'add image:');
  const mounts = draft.mounts.map(({ value, place }) => {
    if (value.type !== 'bind' || value.source.startsWith('/')) return value;
    return { ...value, source: absoluteSource(draft, value.source, place, root) };
  });
  const networkMode: Said<NetworkMode> = draft.networkMode ?? { value: '', place };
  const attachments = attachmentsOf(draft, networks);
  const ports = networkMode.value === 'host' ? draft.ports.map((port) => hostsOwn(draft, port)) : draft.ports;
  const { cpuMillis, memoryBytes, pids } = draft.limits;
  const spec: ServiceSpec = {
    project,
    name: draft.name,
    labels: draft.labels,
    mode,
    replicas: mode === 'global' ? 0 : (draft.replicas?.value ?? 1),
    template: taskTemplate(containerSpec(draft.image.value, { ...draft.container, env, mounts }), {
      limits: {
        cpuMillis: cpuMillis?.value ?? 0,
        memoryBytes: memoryBytes?.value ?? 0,
        pids: pids?.value ?? 0,
        generic: [],
      },
      reservations: {
        cpuMillis: draft.reservations.cpuMillis?.value ?? 0,
        memoryBytes: draft.reservations.memoryBytes?.value ?? 0,
        pids: 0,
        generic: draft.generic.map(({ value }) => value),
      },
      runtime: draft.runtime ?? 'runc',
      networks: attachments.map(({ value }) => value),
      networkMode: networkMode.value,
      ...(draft.bandwidth && { bandwidth: draft.bandwidth.value }),
    }),
    ports: ports.map((port) => port.value),
    restart: draft.restartPolicy ?? draft.restart ?? defaults.restart,
    update: { ...defaults.update, ...draft.update },
    placement: {
      ...placement,
      constraints: draft.constraints.map((constraint) => constraint.value),
      affinities: draft.affinities.map(({ value }) => ({ ...value, service: qualified(project, value.service) })),
    },
    endpointMode: draft.endpointMode ?? 'vip',
    aliases: [],
    allowFrom: draft.allowFrom && ({ services: draft.allowFrom.map(({ value }) => value) } satisfies AllowFrom),
    sticky: draft.sticky ?? '',
    volumeLoss: draft.volumeLoss?.value ?? 'wait',
    maxConcurrent: 0,
    schedule: undefined,
  };
  for (const { field, message, remedy } of specProblems(spec)) refuse(findings, placeOf(draft, field), message, remedy);
  if (findings.errors.length > before) return undefined;
  return {
    spec,
    place,
    ports,
    constraints: draft.constraints,
    image: draft.image.place,
    attachments,
    networkMode,
    allowFrom: draft.allowFrom ?? [],
  };
}

/** `project/name` of a service as a file names it. */
function qualified(project: string, name: string): string {
  return name.includes('/') ? name : qualifiedName(project, name);
}

/** Of a service that says nothing of networks: the default one. */
function attachmentsOf(draft: Draft, networks: DeclaredNetworks): readonly Said<NetworkAttachment>[] {
  if (draft.networkMode) {
    if (draft.networks)
      refuse(
        draft.findings,
        draft.networks.place,
        `with network_mode: ${draft.networkMode.value} there are no networks`,
        'keep one of the two',
      );
    return [];
  }
  if (draft.attachments.length > 0) return draft.attachments;
  const { name } = networks.get('default')!.spec;
  return [{ value: { network: name, aliases: [], ipv4Address: '' }, place: draft.networks?.place ?? draft.place }];
}

/** On its host's network, a port is what its process listens on: it takes the host's, and nothing translates it. */
function hostsOwn(draft: Draft, { value, place }: Said<Port>): Said<Port> {
  if (value.published !== 0 && value.published !== value.target)
    refuse(
      draft.findings,
      place,
      `with network_mode: host port ${value.target} is the host's own: it cannot be published as ${value.published}`,
      `write "${value.target}:${value.target}", and let the process listen on another port where that is taken`,
    );
  return { value: { ...value, published: value.target, mode: 'host' }, place };
}

/** A relative source means the client's directory, which only a node that the user chose can be expected to have. */
function absoluteSource(draft: Draft, source: string, place: Place, root: string): string {
  const pinned = draft.constraints.some(({ value }) => /^\s*node\.(hostname|id)\s*==/.test(value));
  if (source.startsWith('~'))
    refuse(draft.findings, place, `"${source}" depends on who asks`, 'write an absolute path');
  else if (!pinned)
    refuse(
      draft.findings,
      place,
      `"${source}" is a relative path, and the service may run on any node`,
      'write an absolute path, use a named volume, or add the constraint node.hostname == NODE',
    );
  else if (!root)
    refuse(
      draft.findings,
      place,
      `"${source}" is relative to a directory that the client did not tell`,
      'write an absolute path',
    );
  else return normalized(`${root}/${source}`);
  return source;
}

function normalized(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return `/${parts.join('/')}`;
}

function placeOf(draft: Draft, field: string): Place {
  if (field === 'image') return draft.image?.place ?? draft.place;
  if (field === 'deploy.replicas') return draft.replicas?.place ?? draft.place;
  if (field === 'deploy.resources.limits.memory') return draft.limits.memoryBytes?.place ?? draft.place;
  if (field === 'deploy.resources.reservations.memory') return draft.reservations.memoryBytes?.place ?? draft.place;
  if (field === 'deploy.resources.reservations.cpus') return draft.reservations.cpuMillis?.place ?? draft.place;
  if (field === 'network_mode') return draft.networkMode?.place ?? draft.place;
  if (field === 'networks') return draft.networks?.place ?? draft.place;
  if (field === 'ports') return draft.ports[0]?.place ?? draft.place;
  if (field === 'x-bandwidth') return draft.bandwidth?.place ?? draft.place;
  if (field === 'x-drain') return draft.drain ?? draft.place;
  if (field === 'deploy.placement.x-affinity') return draft.affinities.at(-1)?.place ?? draft.place;
  if (field === 'links') return draft.links[0]?.place ?? draft.place;
  if (field === 'volumes') return draft.mounts.at(-1)?.place ?? draft.place;
  return { at: draft.place.at, path: field ? `${draft.place.path}.${field}` : draft.place.path };
}
