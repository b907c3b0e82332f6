/** What each effect of a task does, over the parts of the node: the table that the runner executes from. */

import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Credential } from '#proto/model/cluster.ts';
import type { DocumentContent } from '#proto/model/document.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { defaults } from '#proto/model/service.ts';
import type { Image, ImageRequest, Images } from '../images/images.ts';
import { resourceDevices, resourceEnv } from '../resources.ts';
import type { EtcSettings } from '../runtime/etc-files.ts';
import type { ContainerNetwork, LiveSettings, PreparedMount, RootfsMount, Runtime } from '../runtime/runtime.ts';
import type { Fence } from '../watchdog/fence.ts';
import type { Effect, TaskWanted } from './decide.ts';
import type { Drain } from './drain.ts';
import { runHook, runPreStop } from './hooks.ts';
import { linkEnv } from './link-env.ts';
import { filled } from './placeholders.ts';
import {
  type Asked,
  etcOf,
  hostnameOf,
  joinNetwork,
  linksOf,
  pidNamespaceOf,
  type TaskNetworkParts,
} from './task-network.ts';

/** What the effects done so far have left for those that follow. */
export interface Progress {
  readonly image?: Image;
  readonly rootfs?: readonly RootfsMount[];
  readonly mounts?: readonly PreparedMount[];
  readonly network?: ContainerNetwork;
  readonly container?: 'created' | 'running';
  /** What its control group was last told. */
  readonly settings?: LiveSettings;
  readonly pid?: number;
  /** Its pre_stop hooks are done: what failed of them, in words. */
  readonly preStopFailure?: string;
}

export interface StepInput {
  readonly wanted: TaskWanted;
  readonly got: Progress;
  /** Hooks of its post_start that have run. */
  readonly hooksRun: number;
  /** Aborts when the effect has lost its sense: a preparation when the task is told to stop, a drain when it has ended. */
  readonly signal: AbortSignal;
  /** Shows people what it does. */
  readonly say: (message: string) => void;
}

/** Each resolves to what it adds to the progress, or rejects with a Fault. */
export type Steps = { readonly [E in Effect]: (input: StepInput) => Promise<Progress> };

/** Volumes, binds, tmpfs, configs and secrets, and the files made for the container (hosts, resolv.conf, hostname). */
export interface Mounts {
  prepare(request: {
    readonly wanted: TaskWanted;
    readonly image: Image;
    readonly rootfs: readonly RootfsMount[];
    /** For the files that are made; or the task whose network it has. */
    readonly etc: EtcSettings | { readonly of: TaskId };
    readonly contents: readonly DocumentContent[];
  }): Promise<readonly PreparedMount[]>;
  /** Drops what belongs to the task alone: anonymous volumes, configs and secrets, made files. Nothing where there is none. */
  release(task: TaskId): Promise<void>;
  /** Tasks of which something is here. */
  held(): Promise<readonly TaskId[]>;
}

export interface StepParts extends TaskNetworkParts {
  readonly images: Images;
  readonly runtime: Runtime;
  readonly mounts: Mounts;
  readonly credential: (image: string) => Credential | undefined;
  /** Of all configs and secrets that the task needs: waits until they have come. */
  readonly contents: (asked: Asked) => Promise<readonly DocumentContent[]>;
  /** Where conmon writes the task's log. */
  readonly logPath: (task: TaskId) => string;
  /** Resolves when this node sends to no task that the newest set no longer names as serving. */
  readonly withdrawn: () => Promise<void>;
  readonly drain: Drain;
  readonly fence: Fence;
  readonly clock: Clock;
}

/** For the ports and environment of linked services' images. */
const linkPatienceMs = 2_000;

export function stepTable(parts: StepParts): Steps {
  const { images, runtime } = parts;
  return onFullDisk({
    'ensure-image': async ({ wanted, signal, say }) => {
      const { image: reference, pullPolicy, pullMaxAgeMs: maxAgeMs } = wanted.template.container;
      const image = await images.ensure({
        reference,
        digest: wanted.imageDigest,
        pullPolicy,
        maxAgeMs,
        credential: parts.credential(reference),
        signal,
        onProgress: say,
      });
      return { image };
    },
    'prepare-rootfs': async ({ wanted, got }) => ({ rootfs: await images.prepareRootfs(wanted.task.id, got.image!) }),
    'prepare-mounts': async (input) => ({
      mounts: await parts.mounts.prepare({
        wanted: input.wanted,
        image: input.got.image!,
        rootfs: input.got.rootfs!,
        etc: await etcOf(parts, input),
        contents: await parts.contents(input),
      }),
    }),
    'attach-network': async (input) => ({ network: await joinNetwork(parts, input) }),
    create: async (input) => {
      const { wanted, got } = input;
      const { task, template } = wanted;
      const env = template.container.env.map((entry) => filled(entry, task));
      const { pid } = await runtime.create({
        id: task.id,
        // What the user says goes before what links give; which resources it has is not for the user to say.
        container: {
          ...template.container,
          env: [...(await linkedEnv(parts, input)), ...env, ...resourceEnv(task.generic)],
          devices: [...template.container.devices, ...resourceDevices(task.generic)],
        },
        image: got.image!.config,
        rootfs: got.rootfs!,
        mounts: got.mounts!,
        hostname: await hostnameOf(parts, input),
        network: got.network!,
        pidNamespace: await pidNamespaceOf(parts, input),
        ...settingsOf(wanted),
        runtime: template.runtime,
        logPath: parts.logPath(task.id),
        annotations: {
          'gantry.project': task.project,
          'gantry.service': task.serviceName,
          'gantry.slot': String(task.slot),
        },
      });
      return { container: 'created', pid, settings: settingsOf(wanted) };
    },
    start: async ({ wanted, got }) => {
      const signal = stopSignalOf(wanted, got);
      if (wanted.task.singleton) await parts.fence.arm(wanted.task.id, { pid: got.pid!, signal });
      await runtime.start(wanted.task.id);
      return { container: 'running' };
    },
    limit: async ({ wanted }) => {
      const settings = settingsOf(wanted);
      await runtime.updateLimits(wanted.task.id, settings);
      return { settings };
    },
    'post-start': async ({ wanted, hooksRun, signal, say }) => {
      const { postStart } = wanted.template.container;
      say(`post_start, hook ${hooksRun + 1} of ${postStart.length}`);
      await runHook(parts, wanted.task.id, postStart[hooksRun]!, { signal });
      return {};
    },
    'pre-stop': async ({ wanted, say }) => {
      const { preStop, stopGracePeriodMs } = wanted.template.container;
      say('pre_stop hooks');
      return { preStopFailure: await runPreStop(parts, wanted.task.id, preStop, stopGracePeriodMs) };
    },
    drain: async ({ wanted, signal, say }) => {
      await parts.withdrawn();
      let said = false;
      const left = (count: number) => {
        said = true;
        say(`draining: ${count} ${count === 1 ? 'connection' : 'connections'}`);
      };
      await parts.drain.wait({ addresses: addressesOf(wanted), limitMs: drainLimitMs(wanted), signal, left });
      if (said) say('stopping');
      return {};
    },
    signal: async ({ wanted, got }) => {
      await runtime.kill(wanted.task.id, stopSignalOf(wanted, got));
      return {};
    },
    kill: async ({ wanted }) => {
      await runtime.kill(wanted.task.id, 'SIGKILL');
      return {};
    },
    empty: async ({ wanted }) => {
      await parts.fence.empty(wanted.task.id);
      return {};
    },
    cleanup: async ({ wanted }) => {
      await removeRemains(parts, wanted.task.id);
      parts.fence.forget(wanted.task.id);
      return {};
    },
  });
}

/** Any step may be the first to meet a full disk: its fault says so in words. */
function onFullDisk(steps: Steps): Steps {
  const guarded = Object.entries(steps).map(([effect, step]): [string, Steps[Effect]] => [
    effect,
    (input) =>
      step(input).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOSPC' && error.code !== 'EDQUOT') throw error;
        throw new Fault('exhausted', `a disk of this node is full: ${error.message}`, {
          cause: error,
          remedy: 'free space there',
        });
      }),
  ]);
  return Object.fromEntries(guarded) as unknown as Steps;
}

/** Removes all that a task may have left on this node; safe for a task of which nothing is left, or nothing is known. */
export async function removeRemains(
  parts: Pick<StepParts, 'runtime' | 'network' | 'images' | 'mounts'>,
  task: TaskId,
): Promise<void> {
  // The process first: what it uses cannot go before it.
  await parts.runtime.delete(task);
  const results = await Promise.allSettled([
    parts.network.detach(task),
    parts.images.release(task),
    parts.mounts.release(task),
  ]);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

function stopSignalOf({ template }: TaskWanted, { image }: Progress): string {
  return template.container.stopSignal || image?.config.stopSignal || 'SIGTERM';
}

/** What may change while it runs. */
export function settingsOf({ template }: Pick<TaskWanted, 'template'>): LiveSettings {
  return { limits: template.limits, controls: template.controls };
}

/** Of a seat's two tasks one is to be gone within a second, where its service has not said that connections are worth more. */
const duplicateDrainMs = 300;

function drainLimitMs({ task, template }: Pick<TaskWanted, 'task' | 'template'>): number {
  const { drainMs } = template.container;
  return task.duplicate && drainMs === defaults.drainMs ? duplicateDrainMs : drainMs;
}

/** Where others reach it; none where it shares its host's address, whose connections are not all its own. */
function addressesOf({ task, template }: Pick<TaskWanted, 'task' | 'template'>): readonly string[] {
  if (template.networkMode === 'host') return [];
  return [task.address, ...task.addresses.map(({ address }) => address)].filter((address) => address !== '');
}

/** What cannot be learnt of a linked service's image in time is not worth a task: its own words are enough. */
async function linkedEnv(parts: StepParts, { wanted, signal }: StepInput): Promise<readonly string[]> {
  const limit = new AbortController();
  const timer = parts.clock.after(linkPatienceMs, () => limit.abort(new Fault('timeout', 'the images took too long')));
  try {
    const env = linksOf(parts, wanted).map(async (link) => {
      const request: ImageRequest = {
        reference: link.image,
        digest: link.imageDigest,
        pullPolicy: 'missing',
        credential: parts.credential(link.image),
        signal: AbortSignal.any([signal, limit.signal]),
      };
      const config = await parts.images.config(request).catch(() => undefined);
      signal.throwIfAborted();
      return linkEnv(wanted.task.serviceName, link, config);
    });
    return (await Promise.all(env)).flat();
  } finally {
    timer.cancel();
  }
}
