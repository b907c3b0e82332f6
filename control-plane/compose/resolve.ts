/** Compose files to service specs, in one pure step: specs, or what is still needed for them, or what is wrong and where. */
import { noControls } from '#proto/model/controls.ts';
import { qualifiedName } from '#proto/model/ids.ts';
import { isPerNode } from '#proto/model/job.ts';
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
import { settlePull } from './container-keys.ts';
import { settleQuota } from './control-keys.ts';
import { dependenciesOf, settleDependencies } from './depends-on.ts';
import { type Diagnostic, type Findings, type Place, refuse, startOf, warn } from './diagnostic.ts';
import {
  contentsToAsk,
  type DeclaredDocuments,
  type ResolvedDocument,
  readDocuments,
  refuseSharedTargets,
  type SuppliedData,
  usedDocuments,
  withContents,
} from './documents.ts';
import { type Draft, type EnvFile, emptyDraft, envFile, type Said } from './draft.ts';
import { refuseIsolation } from './health-check.ts';
import { readIncludes } from './include.ts';
import { expand, parseTemplate } from './interpolation.ts';
import { modeOf, refuseRollouts, restartOf } from './jobs.ts';
import { Loader } from './load.ts';
import { readVolumes } from './mounts.ts';
import { type DeclaredNetwork, type DeclaredNetworks, readNetworks, refuseTwoOfOneName } from './networks.ts';
import { normalizedPath } from './paths.ts';
import { preStartSteps, refuseStepNames } from './pre-start.ts';
import { hasProfiles, type Inactive, withProfiles } from './profiles.ts';
import { isNull, readKeys } from './read.ts';
import type { ResolvedService } from './resolved-service.ts';
import { adviseOnHost } from './security-options.ts';
import { laterServiceKeys, serviceKeys } from './service-keys.ts';
import { shareVolumes } from './shared-volumes.ts';
import { takeFiles } from './supplied-files.ts';
import { child, type MapTree, type Tree } from './tree.ts';
import { policiesOf } from './update-config.ts';
import { type Lookup, type Told, Wanted } from './wanted.ts';

export interface ResolveInput extends Told {
  /** Compose files in the order given; later ones are laid over earlier ones. */
  readonly files: readonly { readonly path: string; readonly text: string }[];
  /** Files that were asked for as bytes; undefined: there is none. */
  readonly data: ReadonlyMap<string, SuppliedData | undefined>;
  /** Overrides the project's name; empty: the file's. */
  readonly project: string;
  /** Base name of the first file's directory: the default project. */
  readonly directory: string;
  /** That directory's absolute path, for relative bind sources; empty: unknown. */
  readonly root: string;
  /** Enabled ones; none: those of COMPOSE_PROFILES. */
  readonly profiles: readonly string[];
  /** Files of variables; none: `.env`, where it is there. */
  readonly envFiles: readonly string[];
}

export type Resolution =
  | {
      readonly kind: 'specs';
      readonly project: string;
      readonly services: readonly ResolvedService[];
      /** Those that a service is on. */
      readonly networks: readonly DeclaredNetwork[];
      /** Services of the files that no enabled profile has. */
      readonly inactive: readonly string[];
      /** Those that a service uses; the specs name them without their versions. */
      readonly documents: readonly ResolvedDocument[];
      readonly warnings: readonly Diagnostic[];
    }
  | {
      readonly kind: 'needs';
      readonly files: readonly string[];
      readonly variables: readonly string[];
      /** Files whose bytes are needed. */
      readonly data?: readonly string[];
    }
  | { readonly kind: 'errors'; readonly errors: readonly Diagnostic[]; readonly warnings: readonly Diagnostic[] };

const dotenvPath = '.env';
const projectVariable = 'COMPOSE_PROJECT_NAME';
const profilesVariable = 'COMPOSE_PROFILES';

/** Keys of a Compose file that are not honoured yet. */
const laterFileKeys: Readonly<Record<string, string>> = {
  models: 'serve each by a service of its own, and give its address by environment:',
};

export function resolve(input: ResolveInput): Resolution {
  const findings: Findings = { errors: [], warnings: [] };
  const wanted = new Wanted(input);
  const loader = new Loader(findings, wanted);
  const trees = input.files.flatMap(({ path, text }) => loader.parse(path, text));
  if (input.files.length === 0) refuse(findings, startOf(''), 'no Compose file was given', 'name one with -f');
  if (findings.errors.length > 0) return failed(findings);

  loader.ask(trees);
  wanted.askVariables([projectVariable]);
  const environment = loader.environment(envFilesOf(input), (name) => wanted.variable(name));
  if (wanted.any || !environment) return wanted.needs();
  const outer: Lookup = (name) => wanted.variable(name) ?? environment.get(name);
  const project = projectName(input, trees, outer, findings);
  const lookup: Lookup = (name) => (name === projectVariable ? project : outer(name));
  const including = input.files.map(({ path }) => normalizedPath(path));
  const model = loader.model(trees, { base: '', lookup, including });
  const askedForProfiles = !model || input.profiles.length > 0 || !hasProfiles(model);
  if (!askedForProfiles) wanted.askVariables([profilesVariable]);
  if (wanted.any && findings.errors.length === 0) return wanted.needs();
  if (!model) return failed(findings);
  const enabled = askedForProfiles
    ? input.profiles
    : (lookup(profilesVariable)
        ?.split(',')
        .map((one) => one.trim()) ?? []);
  const active = withProfiles(findings, model, enabled);
  return findings.errors.length > 0
    ? alsoWrong(findings, active.file, project, loader.holes)
    : build(input, { ...active, project, lookup, loader });
}

/** What is wrong beside what could not be loaded, as far as it does not follow from that. */
function alsoWrong(findings: Findings, file: MapTree, project: string, holes: readonly Place[]): Resolution {
  const more: Findings = { errors: [], warnings: [] };
  readFile(more, file, project);
  const follows = (error: Diagnostic) =>
    holes.some(({ at, path }) => at.file === error.file && (path === error.path || path.startsWith(`${error.path}.`)));
  findings.errors.push(...more.errors.filter((error) => !follows(error)));
  return failed(findings);
}

function envFilesOf({ envFiles, files }: ResolveInput): readonly EnvFile[] {
  const place = startOf(files[0]?.path ?? '');
  return envFiles.length > 0 ? envFiles.map((path) => envFile(path, place)) : [envFile(dotenvPath, place, false)];
}

interface Model {
  readonly file: MapTree;
  readonly inactive: Inactive;
  readonly project: string;
  readonly lookup: Lookup;
  readonly loader: Loader;
}

function build(input: ResolveInput, { file, inactive, project, lookup, loader }: Model): Resolution {
  const { findings, wanted } = loader;
  const { drafts, networks, declared } = readFile(findings, file, project);
  if (drafts.length === 0 && findings.errors.length === 0) refuse(findings, file, ...noServices(inactive));

  const environments = drafts.map((draft) => environmentOf(draft, lookup, loader));
  for (const draft of drafts) takeFiles(draft, lookup, wanted);
  if (wanted.any) return wanted.needs();
  const used = usedDocuments(declared, drafts);
  const ask = contentsToAsk(used, input);
  if (!input.answered && ask.data.length + ask.variables.length > 0) return { kind: 'needs', files: [], ...ask };
  const documents = withContents(findings, used, input.data, lookup);
  for (const draft of drafts) refuseSharedTargets(draft);
  refuseStepNames(drafts);
  refuseUnknownServices(drafts, inactive);
  shareVolumes(drafts);
  settleDependencies(drafts);
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
    inactive: [...inactive.keys()],
    documents,
    warnings: distinct(findings.warnings),
  };
}

/** What the file's keys say, before anything is concluded from it. */
export function readFile(
  findings: Findings,
  file: MapTree,
  project: string,
): { readonly drafts: readonly Draft[]; readonly networks: DeclaredNetworks; readonly declared: DeclaredDocuments } {
  const networks = readNetworks(findings, child(file, 'networks'), project, child(file, 'services') ?? file);
  refuseTwoOfOneName(findings, networks);
  const documents: DeclaredDocuments = {
    config: readDocuments(findings, child(file, 'configs'), 'config', project),
    secret: readDocuments(findings, child(file, 'secrets'), 'secret', project),
  };
  const context = { volumes: readVolumes(findings, child(file, 'volumes'), project), networks, documents };
  const drafts: Draft[] = [];
  readKeys(
    findings,
    file,
    'a Compose file',
    drafts,
    {
      name: () => {},
      include: (_, value) => void readIncludes(findings, value),
      version: (_, value) => warn(findings, value, 'version: means nothing any more', 'remove it'),
      volumes: () => {},
      networks: () => {},
      configs: () => {},
      secrets: () => {},
      services: (drafts, services) => {
        if (services.kind !== 'map')
          return refuse(findings, services, 'services must be a map', 'write services: { web: { image: … } }');
        for (const [name, { keyAt, value }] of services.entries) {
          if (value.tag === 'reset' || name.startsWith('x-')) continue;
          const draft = emptyDraft(findings, name, { at: keyAt, path: `services.${name}` });
          const read = (draft: Draft, value: Tree) => {
            readKeys(findings, value, `service ${name}`, draft, serviceKeys(findings, context), laterServiceKeys);
            noteKeys(draft, value);
          };
          read(draft, value);
          if (isNull(value)) refuse(findings, draft.place, `service ${name} is empty`, 'add image:');
          drafts.push(draft, ...preStartSteps(draft, value, read));
        }
      },
    },
    laterFileKeys,
  );
  return { drafts, networks, declared: documents };
}

/** File by file, in the order in which something was found in them. */
function failed(findings: Findings): Resolution {
  const files = [...new Set(findings.errors.map(({ file }) => file))];
  const errors = distinct(findings.errors).sort(
    (a, b) => files.indexOf(a.file) - files.indexOf(b.file) || a.line - b.line || a.column - b.column,
  );
  return { kind: 'errors', errors, warnings: distinct(findings.warnings) };
}

/** What a service and the steps before it have in common is read more than once, and told once. */
function distinct(diagnostics: readonly Diagnostic[]): Diagnostic[] {
  const keyOf = ({ file, line, column, message }: Diagnostic) => `${file}:${line}:${column} ${message}`;
  return [...new Map(diagnostics.map((one) => [keyOf(one), one])).values()];
}

function noServices(inactive: Inactive): [message: string, remedy: string] {
  const [profile] = [...inactive.values()].flat();
  return profile === undefined
    ? ['there are no services', 'declare services:']
    : ['no service is enabled', `enable one with --profile, such as --profile ${profile}`];
}

function projectName(input: ResolveInput, trees: readonly Tree[], lookup: Lookup, findings: Findings): string {
  const named = trees.flatMap((tree) => child(tree, 'name') ?? []).at(-1);
  const place = named ?? startOf(input.files[0]?.path ?? '');
  const pieces = named?.kind === 'scalar' ? parseTemplate(named.source) : [];
  const inFile = 'message' in pieces ? '' : expand(pieces, lookup).text;
  const explicit = input.project || lookup(projectVariable) || inFile;
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
function environmentOf(draft: Draft, lookup: Lookup, loader: Loader): readonly string[] {
  const { findings } = draft;
  const values = new Map(loader.environment(draft.envFiles, lookup));
  for (const { name, value, tree } of draft.environment) {
    if (value === undefined) loader.wanted.askVariables([name]);
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
  adviseOnHost(draft);
  settlePull(draft);
  settleQuota(draft);
  const mode = modeOf(draft);
  const perNode = isPerNode({ mode });
  refuseRollouts(draft);
  if (perNode && draft.replicas)
    refuse(
      findings,
      draft.replicas.place,
      'a global service has one task on each node, not replicas',
      `remove replicas, or use mode: ${mode.replace('global', 'replicated')}`,
    );
  if (perNode && draft.volumeLoss)
    refuse(
      findings,
      draft.volumeLoss.place,
      'a global service has a volume of its own on each node: none moves',
      'remove x-volume-loss',
    );
  const image = imageOf(draft);
  const mounts = draft.mounts.map(({ value, place }) => {
    if (value.type !== 'bind' || value.source.startsWith('/')) return value;
    return { ...value, source: absoluteSource(draft, value.source, place, root) };
  });
  const networkMode: Said<NetworkMode> = draft.networkMode ?? { value: '', place };
  refuseIsolation(draft, mode, networkMode.value);
  const attachments = attachmentsOf(draft, networks);
  const ports = networkMode.value === 'host' ? draft.ports.map((port) => hostsOwn(draft, port)) : draft.ports;
  const { cpuMillis, memoryBytes, pids } = draft.limits;
  const spec: ServiceSpec = {
    project,
    name: draft.name,
    labels: draft.labels,
    mode,
    replicas: perNode ? 0 : (draft.replicas?.value ?? 1),
    template: taskTemplate(containerSpec(image.value, { ...draft.container, env, mounts }), {
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
      networks: attachments.map(({ value }) => withContainerName(draft, value)),
      networkMode: networkMode.value,
      documents: draft.documents.map(({ value }) => value),
      ...(draft.bandwidth && { bandwidth: draft.bandwidth.value }),
      controls: { ...noControls, ...draft.controls },
    }),
    ports: ports.map((port) => port.value),
    restart: restartOf(draft),
    ...policiesOf(draft),
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
    failover: draft.failover ?? 'prompt',
    protected: draft.protected ?? false,
    rebalance: draft.rebalance ?? '',
    maxConcurrent: draft.maxConcurrent?.value ?? 0,
    schedule: draft.schedule?.value,
    priority: draft.priority ?? 0,
    isolation: draft.isolation?.value ?? defaults.isolation,
    preStartOf: draft.preStartOf ?? '',
    autoscale: draft.autoscale?.value,
    dependsOn: dependenciesOf(draft).map(({ value }) => value),
  };
  for (const { field, message, remedy } of specProblems(spec)) refuse(findings, placeOf(draft, field), message, remedy);
  if (findings.errors.length > before) return undefined;
  return {
    spec,
    place,
    ports,
    constraints: draft.constraints,
    image: image.place,
    attachments,
    networkMode,
    allowFrom: draft.allowFrom ?? [],
    documents: draft.documents,
  };
}

/** `project/name` of a service as a file names it. */
function qualified(project: string, name: string): string {
  return name.includes('/') ? name : qualifiedName(project, name);
}

function noteKeys(draft: Draft, service: Tree): void {
  if (service.kind !== 'map') return;
  for (const [key, { keyAt }] of service.entries)
    draft.keys.set(key, { at: keyAt, path: `${draft.place.path}.${key}` });
}

/** A container's name is another name of its service, which has no other task. */
function withContainerName({ container }: Draft, value: NetworkAttachment): NetworkAttachment {
  const { containerName = '' } = container;
  if (containerName === '' || value.aliases.includes(containerName)) return value;
  return { ...value, aliases: [...value.aliases, containerName] };
}

/** The image; where there is none, a name that lets the rest be looked at nevertheless. */
function imageOf({ findings, name, place, build, image }: Draft): Said<string> {
  if (image && build)
    warn(findings, build, 'nothing is built here: the image is pulled', `push what you build as ${image.value}`);
  else if (build)
    refuse(findings, build, 'images are not built by Gantry yet', 'build and push it, and name it by image: too');
  else if (!image) refuse(findings, place, `service ${name} has no image`, 'add image:');
  return image ?? { value: 'none', place };
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
      'write an absolute path, use a named volume, configs: for files, or add the constraint node.hostname == NODE',
    );
  else if (!root)
    refuse(
      draft.findings,
      place,
      `"${source}" is relative to a directory that the client did not tell`,
      'write an absolute path',
    );
  else return normalizedPath(`${root}/${source}`);
  return source;
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
  if (field === 'x-schedule.cron') return draft.schedule?.cron ?? draft.place;
  if (field === 'x-schedule.timezone') return draft.schedule?.timezone ?? draft.place;
  if (field === 'x-schedule') return draft.schedule?.place ?? draft.place;
  if (field === 'x-max-concurrent') return draft.maxConcurrent?.place ?? draft.place;
  if (field === 'deploy.restart_policy.condition') return draft.restartsAlways ?? draft.place;
  if (field === 'x-drain') return draft.drain ?? draft.place;
  if (field === 'deploy.placement.x-affinity') return draft.affinities.at(-1)?.place ?? draft.place;
  if (field === 'links') return draft.links[0]?.place ?? draft.place;
  if (field === 'x-autoscale') return draft.autoscale?.place ?? draft.place;
  if (field === 'volumes') return draft.mounts.at(-1)?.place ?? draft.place;
  if (field === 'documents') return draft.documents.at(-1)?.place ?? draft.place;
  const said = draft.keys.get(field.split('.')[0]!);
  if (said) return said;
  return { at: draft.place.at, path: field ? `${draft.place.path}.${field}` : draft.place.path };
}
