/**
 * `pre_start`: steps that must end well before tasks of a service start, once for all of them. Each is a job of its own that has what its
 * service has, but for what it says itself; they wait for each other and for what the service waits for, and the service for them.
 */
import { sharedNetworkOf } from '#proto/model/network.ts';
import { defaults } from '#proto/model/service.ts';
import { isName } from '#proto/model/validate.ts';
import { refuse } from './diagnostic.ts';
import { type Draft, emptyDraft } from './draft.ts';
import { mergeService } from './merge.ts';
import { type KeyReader, readBoolean, readKeys } from './read.ts';
import { type MapTree, rebased, type Tree, withoutKey } from './tree.ts';

const mostSteps = 32;

/** What a step may say: keys of a service, and `per_replica`. */
const ownKeys = ['image', 'entrypoint', 'command', 'user', 'privileged', 'working_dir', 'environment'];

/** What a step does not have of its service: it answers nobody, ends, and waits for what it is told to wait for. */
const notInherited = [
  'ports',
  'expose',
  'healthcheck',
  'pre_start',
  'post_start',
  'pre_stop',
  'container_name',
  'scale',
  'restart',
  'depends_on',
  'profiles',
  'x-schedule',
  'x-max-concurrent',
  'x-autoscale',
  'x-sticky',
  'x-allow-from',
  'x-protected',
  'x-rebalance',
  'x-affinity',
];

/** Checks the steps' keys; `preStartSteps` reads what they say. */
export function readPreStart({ findings }: Draft, tree: Tree): void {
  if (tree.kind !== 'list') {
    refuse(findings, tree, 'steps are a list', 'write - command: …');
    return;
  }
  if (tree.items.length > mostSteps)
    refuse(findings, tree, `${tree.items.length} steps are too many`, `at most ${mostSteps} fit`);
  const readers: Record<string, KeyReader<undefined>> = {
    ...Object.fromEntries(ownKeys.map((key) => [key, () => {}])),
    per_replica: (_, value) => {
      if (readBoolean(findings, value))
        refuse(
          findings,
          value,
          'a step runs once for all replicas, on one node',
          'remove per_replica; what each task needs for itself, do in the entrypoint',
        );
    },
  };
  for (const item of tree.items) readKeys(findings, item, 'a step', undefined, readers);
}

/** The services that the steps of a service are; it waits for them from here on. `read` reads the keys of one. */
export function preStartSteps(service: Draft, tree: Tree, read: (step: Draft, tree: Tree) => void): readonly Draft[] {
  const { findings, name } = service;
  const said = tree.kind === 'map' ? tree.entries.get('pre_start')?.value : undefined;
  if (tree.kind !== 'map' || said?.kind !== 'list') return [];
  const before = [...service.dependsOn];
  const steps: Draft[] = [];
  for (const [index, item] of said.items.entries()) {
    if (item.kind !== 'map') continue;
    const step = emptyDraft(findings, `${name}-pre-start-${index + 1}`, item);
    const own = { ...item, entries: new Map([...item.entries].filter(([key]) => ownKeys.includes(key))) };
    read(step, rebased(mergeService(name, inherited(tree, own), own), item.path));
    if (!own.entries.has('command') && !own.entries.has('image') && !own.entries.has('entrypoint'))
      refuse(findings, item, 'this step does nothing of its own', 'add command:');
    if (service.networkMode && sharedNetworkOf(service.networkMode.value) !== undefined)
      refuse(
        findings,
        item,
        `with network_mode: ${service.networkMode.value} there are no steps`,
        'do it in the entrypoint',
      );
    settle(step, service);
    step.dependsOn.push(...before.map(({ value, place }) => ({ value: { ...value, restart: false }, place })));
    for (const { name } of steps.slice(-1)) step.dependsOn.push(completed(name, item));
    service.dependsOn.push(completed(step.name, item));
    steps.push(step);
  }
  return steps;
}

/** Steps whose names somebody else has, or that are no names. */
export function refuseStepNames(drafts: readonly Draft[]): void {
  const steps = drafts.filter(({ preStartOf }) => preStartOf !== undefined);
  const others = new Set(drafts.filter(({ preStartOf }) => preStartOf === undefined).map(({ name }) => name));
  for (const { findings, name, place } of steps) {
    if (others.has(name))
      refuse(findings, place, `this step is called ${name}, and so is a service`, 'rename that service');
    else if (!isName(name))
      refuse(findings, place, `"${name}" cannot name this step`, 'give its service a shorter name');
  }
}

/** The service as its steps have it. */
function inherited(service: MapTree, own: MapTree): MapTree {
  const dropped = own.entries.has('image') ? [...notInherited, 'build'] : notInherited;
  const kept = dropped.reduce(withoutKey, service);
  const deploy = kept.entries.get('deploy');
  if (deploy?.value.kind !== 'map') return kept;
  const entries = new Map([...deploy.value.entries].filter(([key]) => key === 'resources' || key === 'placement'));
  const placement = entries.get('placement');
  if (placement?.value.kind === 'map') {
    const constraints = new Map([...placement.value.entries].filter(([key]) => key === 'constraints'));
    entries.set('placement', { ...placement, value: { ...placement.value, entries: constraints } });
  }
  const value = { ...deploy.value, entries };
  return { ...kept, entries: new Map(kept.entries).set('deploy', { ...deploy, value }) };
}

/** It runs once; a failure is for whoever applies the file again. */
function settle(step: Draft, { name, place }: Draft): void {
  step.preStartOf = name;
  step.mode = { value: 'replicated-job', place };
  step.restart = { ...defaults.jobRestart, condition: 'none' };
  step.allowFrom = [];
  step.attachments.forEach((said, index) => {
    step.attachments[index] = { ...said, value: { ...said.value, aliases: [], ipv4Address: '' } };
  });
}

function completed(service: string, { at, path }: Tree) {
  const condition = 'service_completed_successfully' as const;
  return { value: { service, condition, restart: false, required: true }, place: { at, path } };
}
