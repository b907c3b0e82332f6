/** Compose files to one transaction: all services of the file as it says, or nothing and the reasons with their places. */
import {
  type Diagnostic,
  type Findings,
  type Place,
  refuse,
  suggestion,
  warn,
} from '#control-plane/compose/diagnostic.ts';
import type { SuppliedData } from '#control-plane/compose/documents.ts';
import type { DeclaredNetwork } from '#control-plane/compose/networks.ts';
import { type Resolution, type ResolveInput, resolve } from '#control-plane/compose/resolve.ts';
import type { ResolvedService } from '#control-plane/compose/resolved-service.ts';
import { renewDependents } from '#control-plane/reconcilers/dependents.ts';
import { DocumentWish } from '#control-plane/reconcilers/document-changes.ts';
import { NetworkWish } from '#control-plane/reconcilers/network-changes.ts';
import { fixedAddressProblem } from '#control-plane/reconcilers/network-ranges.ts';
import { portOwner } from '#control-plane/reconcilers/published-ports.ts';
import { same } from '#control-plane/reconcilers/same.ts';
import { applyService, type WishContext } from '#control-plane/reconcilers/service-changes.ts';
import { discardServices } from '#control-plane/reconcilers/trash.ts';
import { parseConstraint, parseSpread } from '#control-plane/scheduler/constraint.ts';
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type {
  ApplyRequest,
  ApplyResponse,
  PlannedChange,
  PlannedDocument,
  PlannedNetwork,
  PlannedTask,
  SourceFile,
} from '#proto/gen/gantry/v1/operator.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { Concealed } from '#proto/model/concealed.ts';
import { qualifiedName, type ServiceId } from '#proto/model/ids.ts';
import type { Service, ServiceSpec } from '#proto/model/service.ts';
import { disruptionOf } from './disruption.ts';
import { decideDocuments, withVersions } from './documents.ts';
import { scheduleWords } from './jobs.ts';
import { nameOfService } from './names.ts';
import { commitWish, type OperatorParts, wishContext } from './parts.ts';
import { planDifference } from './plan-difference.ts';
import { networkDiff, specDiff } from './spec-diff.ts';
import { unsettled } from './unsettled.ts';

/** Faults: those of the store. Everything that is wrong with the files is in the response. */
export async function apply(parts: OperatorParts, request: ApplyRequest, by = ''): Promise<ApplyResponse> {
  const resolution = resolve(inputOf(request));
  if (resolution.kind === 'needs')
    return response({
      needsFiles: [...resolution.files],
      needsVariables: [...resolution.variables],
      needsData: [...(resolution.data ?? [])],
    });
  const warnings = [...resolution.warnings];
  if (resolution.kind === 'errors') return response({ errors: [...resolution.errors], warnings });
  const { project } = resolution;
  let wish = decide(parts, wishContext(parts), resolution, request);
  let differences: string[] = [];
  const moving: string[] = [];
  const answer = () =>
    response({
      project,
      warnings: [...warnings, ...wish.warnings],
      changes: wish.planned,
      networks: wish.networks,
      documents: wish.documents,
      errors: wish.errors,
      digest: digestOf(parts, wish.changes),
      differences,
      unsettled: moving,
    });
  if (wish.errors.length > 0) return answer();
  if (request.dryRun) {
    const context = wishContext(parts);
    moving.push(...unsettled(context.snapshot, wish.planned, context.now));
    foretell(parts, context, wish);
    return answer();
  }
  const decideNow = (context: WishContext) => {
    wish = decide(parts, context, resolution, request);
    if (wish.errors.length > 0) return [];
    if (request.expected) {
      foretell(parts, context, wish);
      const { planned: changes, networks, documents } = wish;
      const digest = digestOf(parts, wish.changes);
      differences = planDifference(request.expected, { digest, changes, networks, documents });
      if (differences.length > 0) {
        if (digest === request.expected.digest) moving.push(...unsettled(context.snapshot, changes, context.now));
        return [];
      }
    }
    return wish.changes;
  };
  const revision = await commitWish(parts, decideNow, by);
  return { ...answer(), revision };
}

/** Services of whose tasks some leave for others of higher priority. */
function preempted(
  snapshot: Snapshot,
  tasks: ReadonlyMap<string, readonly PlannedTask[]>,
  planned: readonly PlannedChange[],
): PlannedChange[] {
  const known = new Set(planned.map(({ serviceId }) => serviceId));
  return [...tasks].flatMap(([serviceId, tasks]) => {
    const service = snapshot.service(serviceId as ServiceId);
    if (known.has(serviceId) || !service || tasks.length === 0) return [];
    const details = ['some of its tasks are preempted'];
    return [
      { action: 'unchanged', serviceId, name: nameOfService(service), details, tasks: [...tasks], disruption: '' },
    ];
  });
}

/** Writes into the plan what becomes of tasks. */
function foretell(parts: OperatorParts, { snapshot, now }: WishContext, { changes, planned }: Wish): void {
  const tasks = parts.plan(snapshot, changes, now);
  const specs = new Map(
    changes.flatMap((change) => (change.table === 'service' ? [[change.key, change.value] as const] : [])),
  );
  for (const change of planned) {
    change.tasks = [...(tasks.get(change.serviceId) ?? [])];
    const after = specs.get(change.serviceId as ServiceId);
    change.disruption = disruptionOf(after?.removing ? undefined : after?.spec, change.tasks);
  }
  planned.push(...preempted(snapshot, tasks, planned));
}

/** Of what the services are to be, by their names. */
function digestOf({ contents }: OperatorParts, changes: readonly Change[]): string {
  const specs = changes.flatMap((change) => (change.table === 'service' && change.value ? [change.value.spec] : []));
  specs.sort((a, b) => (a.name < b.name ? -1 : 1));
  return contents.version({ type: 'config', name: 'a plan' }, new Concealed(Buffer.from(JSON.stringify(specs))));
}

function inputOf(request: ApplyRequest): ResolveInput {
  const supplied = new Map<string, string | undefined>();
  const data = new Map<string, SuppliedData | undefined>();
  for (const file of request.files.slice(request.composeFiles)) {
    if (file.hasData || file.missing) data.set(file.path, file.missing ? undefined : suppliedData(file));
    if (!file.hasData) supplied.set(file.path, file.missing ? undefined : file.text);
  }
  const variables = new Map<string, string | undefined>(request.unsetVariables.map((name) => [name, undefined]));
  for (const [name, value] of Object.entries(request.variables)) variables.set(name, value);
  const { project, directory, root, answered, profiles, envFiles } = request;
  return {
    files: request.files.slice(0, request.composeFiles),
    supplied,
    variables,
    data,
    project,
    directory,
    root,
    answered,
    profiles,
    envFiles,
  };
}

function suppliedData({ data, dataBytes }: SourceFile): SuppliedData {
  return { data: new Concealed(data), bytes: dataBytes };
}

function response(fields: Partial<ApplyResponse>): ApplyResponse {
  return {
    needsFiles: [],
    needsVariables: [],
    errors: [],
    warnings: [],
    changes: [],
    networks: [],
    documents: [],
    needsData: [],
    revision: 0,
    project: '',
    digest: '',
    differences: [],
    unsettled: [],
    ...fields,
  };
}

interface Wish {
  readonly changes: readonly Change[];
  readonly planned: PlannedChange[];
  readonly networks: PlannedNetwork[];
  readonly documents: PlannedDocument[];
  readonly errors: Diagnostic[];
  readonly warnings: Diagnostic[];
}

type Resolved = Extract<Resolution, { kind: 'specs' }>;

function decide(
  { contents }: OperatorParts,
  context: WishContext,
  { project, services, networks, documents, inactive }: Resolved,
  { prune, confirmed, files }: Pick<ApplyRequest, 'prune' | 'confirmed' | 'files'>,
): Wish {
  const { snapshot } = context;
  const findings: Findings = { errors: [], warnings: [] };
  const changes: Change[] = [];
  const networkWish = new NetworkWish(context);
  const plannedNetworks = decideNetworks(findings, context, networkWish, networks);
  const documentWish = new DocumentWish(context);
  const { planned: plannedDocuments, versions } = decideDocuments(
    findings,
    snapshot,
    documentWish,
    contents,
    documents,
  );
  const planned: PlannedChange[] = [];
  const stays = new Set(services.map(({ spec }) => spec.name));
  const others = [...snapshot.all('service')].filter(({ spec }) => spec.project === project && !stays.has(spec.name));
  /** A step that its service does not have any more needs no word of its own. */
  const goes = ({ removing, spec }: Service) =>
    removing || stays.has(spec.preStartOf) || (prune && !inactive.includes(spec.name));
  const gone = new Set(others.filter(goes));
  for (const service of services) {
    const { place, constraints, ports } = service;
    const before = snapshot.serviceNamed(project, service.spec.name);
    const spec = withVersions(service, before?.spec, versions, documentWish);
    for (const { value, place } of constraints) checked(findings, place, () => parseConstraint(value));
    checked(findings, place, () => spec.placement.spread.map(parseSpread));
    for (const { value, place } of ports) {
      const owner = portOwner(snapshot, spec, value, gone);
      if (owner)
        refuse(
          findings,
          place,
          `port ${value.published}/${value.protocol} is published by service ${nameOfService(owner)}`,
          'publish another port, or remove that service',
        );
    }
    for (const { service } of spec.placement.affinities) {
      const [owner, name] = service.split('/') as [string, string];
      if (owner !== project && !snapshot.serviceNamed(owner, name))
        warn(findings, place, `there is no service ${service} yet: x-affinity counts when it is there`);
    }
    checkNetworks(findings, context, networkWish, service, stays);
    if (!before || !same(before.spec.template.networks, spec.template.networks)) networkWish.join();
    const edits = checked(findings, place, () => applyService(context, spec)) ?? [];
    changes.push(...edits);
    const edited = edits.find((change) => change.table === 'service');
    planned.push({
      action: edits.length === 0 ? 'unchanged' : before ? 'update' : 'create',
      serviceId: edited?.key ?? before?.id ?? '',
      name: qualifiedName(project, spec.name),
      details: [
        ...(before && edits.length > 0 ? specDiff(before.spec, spec) : []),
        ...(same(before?.spec.schedule, spec.schedule) ? [] : scheduleWords(spec, context.now)),
      ],
      tasks: [],
      disruption: '',
    });
  }
  for (const service of others.filter((service) => !service.removing)) {
    planned.push({
      action: goes(service) ? 'remove' : 'unchanged',
      serviceId: service.id,
      name: nameOfService(service),
      details: [whyOther(service, inactive, prune)],
      tasks: [],
      disruption: '',
    });
  }
  // Nothing in the file speaks of them: the file as a whole does.
  const top = { at: { file: files[0]?.path ?? '', line: 1, column: 1 }, path: '' };
  changes.push(...(checked(findings, top, () => discardServices(context, others.filter(goes), { confirmed })) ?? []));
  const renewal = renewDependents(context, changes);
  for (const { service, because } of renewal.dependents) {
    const plan = planned.find(({ serviceId }) => serviceId === service.id)!;
    if (plan.action === 'unchanged') Object.assign(plan, { action: 'update', details: [] });
    plan.details.push(`restarts: it depends on ${because}`);
  }
  plannedNetworks.push(...goingNetworks(context, services, gone));
  return {
    changes: [...renewal.changes, ...networkWish.changes, ...documentWish.changes],
    planned,
    networks: plannedNetworks,
    documents: plannedDocuments,
    ...findings,
  };
}

/** Of a service of the project that takes no part in the file. */
function whyOther({ spec }: Service, inactive: readonly string[], prune: boolean): string {
  if (inactive.includes(spec.name)) return 'its profiles are not enabled: it stays as it is';
  return prune ? 'no longer in the file' : 'not in the file: --prune removes it';
}

function decideNetworks(
  findings: Findings,
  { snapshot }: WishContext,
  wish: NetworkWish,
  networks: readonly DeclaredNetwork[],
): PlannedNetwork[] {
  return networks.flatMap(({ spec, place, external }) => {
    const before = snapshot.get('network', spec.name)?.value.spec;
    if (external) {
      if (!before)
        refuse(
          findings,
          place,
          `network ${spec.name} is external, and there is none of that name`,
          `make it: gantry network create ${spec.name}, or apply the project that has it first`,
        );
      return [];
    }
    const action = checked(findings, place, () => wish.apply(spec));
    if (action === undefined) return [];
    return [{ action, name: spec.name, details: before && action === 'update' ? networkDiff(before, spec) : [] }];
  });
}

/** Networks that nobody is on once these services are gone. */
function goingNetworks(
  { snapshot }: WishContext,
  services: readonly ResolvedService[],
  gone: ReadonlySet<Service>,
): PlannedNetwork[] {
  const left = new Set([...gone].flatMap(({ spec }) => spec.template.networks.map(({ network }) => network)));
  const stays = (spec: ServiceSpec | undefined) => {
    for (const { network } of spec?.template.networks ?? []) left.delete(network);
  };
  for (const { spec } of services) stays(spec);
  for (const service of snapshot.all('service')) {
    if (gone.has(service)) continue;
    stays(service.spec);
    stays(service.previous);
  }
  return [...left]
    .filter((name) => snapshot.get('network', name)?.value.spec.project)
    .map((name) => ({ action: 'remove', name, details: ['no service is on it any more'] }));
}

/** What a service asks of its networks and of its callers, as far as only the cluster knows. */
function checkNetworks(
  findings: Findings,
  { snapshot }: WishContext,
  wish: NetworkWish,
  { spec, attachments, ports, allowFrom }: ResolvedService,
  inFile: ReadonlySet<string>,
): void {
  const networks = attachments.flatMap(({ value }) => wish.named(value.network) ?? []);
  for (const { value, place } of attachments) {
    const network = wish.named(value.network);
    if (!network || value.ipv4Address === '') continue;
    const problem = fixedAddressProblem(snapshot, network, spec, value);
    if (problem) refuse(findings, place, problem, 'choose another ipv4_address');
  }
  const [port] = ports;
  if (
    port &&
    networks.length > 0 &&
    networks.length === attachments.length &&
    networks.every(({ internal }) => internal)
  )
    refuse(
      findings,
      port.place,
      `service ${spec.name} is on internal networks only: nobody outside may reach it`,
      'remove ports:, or put it on a network that is not internal too',
    );
  for (const { value, place } of allowFrom) {
    const [project, name] = value.includes('/') ? (value.split('/') as [string, string]) : [spec.project, value];
    if (value === '*' || snapshot.serviceNamed(project, name) || (project === spec.project && inFile.has(name)))
      continue;
    const message = `there is no service ${qualifiedName(project, name)}`;
    if (project === spec.project)
      refuse(
        findings,
        place,
        message,
        suggestionAmong(
          name,
          [...inFile].filter((one) => one !== spec.name),
        ),
      );
    else warn(findings, place, `${message} yet: it may call when it is there`);
  }
}

function suggestionAmong(name: string, names: readonly string[]): string {
  const guess = suggestion(name, names);
  return guess ? `did you mean "${guess}"?` : 'name a service of the project, or PROJECT/NAME';
}

/** The result, or the Fault's words at the place. */
function checked<T>(findings: Findings, place: Place, action: () => T): T | undefined {
  try {
    return action();
  } catch (error) {
    if (!isFault(error, 'invalid', 'conflict', 'exists', 'precondition')) throw error;
    return refuse(findings, place, error.message, error.remedy ?? '');
  }
}
