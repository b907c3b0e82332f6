/** `depends_on:` and what implies it: which services come first, and what must be true of them. */
import { isJob } from '#proto/model/job.ts';
import { sharedNetworkOf } from '#proto/model/network.ts';
import { type Dependency, dependencyConditions } from '#proto/model/order.ts';
import { defaults } from '#proto/model/service.ts';
import { type Place, refuse } from './diagnostic.ts';
import type { Draft, Said } from './draft.ts';
import { readBoolean, readKeys, readOneOf, readScalars } from './read.ts';
import type { Tree } from './tree.ts';

/** A list of names, or a map of them with conditions; whether there are such services is asked when all are known. */
export function readDependsOn(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  if (tree.kind !== 'map') {
    for (const item of readScalars(findings, tree)) say(draft, started(item.source), item);
    return;
  }
  for (const [service, { keyAt, value }] of tree.entries) {
    const place = { at: keyAt, path: `${tree.path}.${service}` };
    const said: { -readonly [Key in keyof Dependency]?: Dependency[Key] } = {};
    readKeys(findings, value, 'a dependency', said, {
      condition: (said, value) => {
        said.condition = readOneOf(findings, value, dependencyConditions) ?? 'service_started';
      },
      restart: (said, value) => {
        said.restart = readBoolean(findings, value) ?? false;
      },
      required: (said, value) => {
        said.required = readBoolean(findings, value) ?? true;
      },
    });
    if (value.tag === 'reset') continue;
    if (said.condition === undefined && value.kind === 'map')
      refuse(findings, place, `the dependency on ${service} has no condition`, 'add condition: service_started');
    say(draft, { ...started(service), ...said }, place);
  }
}

function started(service: string): Dependency {
  return { service, condition: 'service_started', restart: false, required: true };
}

/** A service named twice is one dependency: the last word about it. */
function say(draft: Draft, value: Dependency, place: Place): void {
  const index = draft.dependsOn.findIndex((one) => one.value.service === value.service);
  draft.dependsOn.splice(index < 0 ? draft.dependsOn.length : index, 1, { value, place });
}

/**
 * What the service says, and what follows from its other keys, as in Compose: who is linked to, or whose network, processes or volumes
 * are had, comes first; and but for volumes, an operation that renews it renews this one too.
 */
export function dependenciesOf(draft: Draft): readonly Said<Dependency>[] {
  const all = new Map(draft.dependsOn.map((said) => [said.value.service, said]));
  const shared = draft.networkMode && sharedNetworkOf(draft.networkMode.value);
  const linked = shared === undefined ? draft.links : [{ value: shared, place: draft.networkMode!.place }];
  const implied = [
    ...linked.map(({ value, place }) => ({ value: { ...started(value), restart: true }, place })),
    ...draft.volumesFrom.map(({ value, place }) => ({ value: started(value.service), place })),
  ];
  for (const said of implied) if (!all.has(said.value.service)) all.set(said.value.service, said);
  return [...all.values()];
}

/** What dependencies ask of the services that they name, once all are known: an end, a health check, and no circle. */
export function settleDependencies(drafts: readonly Draft[]): void {
  const named = new Map(drafts.map((draft) => [draft.name, draft]));
  for (const draft of drafts)
    for (const { value, place } of draft.dependsOn) {
      const target = named.get(value.service);
      if (!target) continue;
      if (value.condition === 'service_completed_successfully') mustEnd(draft, target, place);
      if (value.condition === 'service_healthy' && target.container.healthCheck?.test[0] === 'NONE')
        refuse(
          draft.findings,
          place,
          `service ${target.name} has its health check switched off`,
          'give it one, or wait for service_started',
        );
    }
  refuseCircles(drafts, named);
}

/** Compose's own default is not to restart; where a service is awaited to end, silence means that. */
function mustEnd(draft: Draft, target: Draft, place: Place): void {
  if (isJob({ mode: target.mode?.value ?? '' })) return;
  const policy = target.restartPolicy ?? target.restart;
  if (!policy) target.restart = { ...defaults.restart, condition: 'none' };
  else if (policy.condition === 'any')
    refuse(
      draft.findings,
      place,
      `service ${target.name} is restarted whenever it ends: it never completes`,
      'write restart: "no" or restart: on-failure there',
    );
}

/** Depth first; the dependency that closes a circle is refused. */
function refuseCircles(drafts: readonly Draft[], named: ReadonlyMap<string, Draft>): void {
  const done = new Set<Draft>();
  const way: Draft[] = [];
  const visit = (draft: Draft) => {
    if (done.has(draft)) return;
    way.push(draft);
    for (const { value, place } of dependenciesOf(draft)) {
      const target = named.get(value.service);
      if (!target || target === draft) continue;
      const from = way.indexOf(target);
      if (from < 0) visit(target);
      else if (!isRefused(draft, place)) {
        const circle = [...way.slice(from), target].map(({ name }) => name).join(' → ');
        refuse(draft.findings, place, `services wait for each other: ${circle}`, 'remove one of these dependencies');
      }
    }
    way.pop();
    done.add(draft);
  };
  for (const draft of drafts) visit(draft);
}

/** One mistake is told once: a ring of `volumes_from` has been. */
function isRefused({ findings }: Draft, { at }: Place): boolean {
  return findings.errors.some(({ file, line, column }) => file === at.file && line === at.line && column === at.column);
}
