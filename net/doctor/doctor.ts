/** Runs the probes of one request side by side, and says every fact as it is found. */
import path from 'node:path';
import { HostKernel } from '#net/host/host-kernel.ts';
import { Netlink } from '#net/host/netlink.ts';
import { Nftables } from '#net/host/nftables.ts';
import type { Probe, ProbeFact } from '#proto/gen/gantry/v1/probe.ts';
import { describe, isFault } from '#proto/kernel/errors.ts';
import { type Fact, type Say, unknown } from './fact.ts';
import { probeHost } from './host-probe.ts';
import { probeName } from './name-probe.ts';
import { probeReach } from './reach-probe.ts';
import { probeService } from './service-probe.ts';
import { showNode } from './show.ts';
import { probeSteps } from './steps-probe.ts';
import { probeTask } from './task-probe.ts';
import type { DoctorParts, View } from './view.ts';
import { probeWatch } from './watch-probe.ts';
import { probeWay } from './way-probe.ts';

/** Probes that run at one time. */
const mostAtOnce = 12;

/** Resolves when every probe has said what it found; `signal` ends those that watch. Never rejects for what a probe meets. */
export async function examine(
  parts: DoctorParts,
  probes: readonly Probe[],
  say: (fact: ProbeFact) => void,
  signal: AbortSignal,
): Promise<void> {
  const plan = parts.planned();
  if (!plan) {
    const remedy = "it has no subnet yet, or its agent cannot set the network up: the agent's log says which";
    for (const { id } of probes)
      say({ probe: id, ...unknown('network', 'this node holds no network yet', remedy), verdict: 'broken' });
    return;
  }
  const kernel = new HostKernel(parts.netnsDir);
  const netlink = new Netlink(0);
  const nftables = new Nftables();
  const view: View = {
    ...parts,
    plan,
    kernel,
    netlink,
    nftables,
    netnsOf: (id) => path.join(parts.netnsDir, path.basename(id)),
  };
  try {
    const waiting = [...probes];
    const turns = Array.from({ length: Math.min(mostAtOnce, waiting.length) }, async () => {
      for (let probe = waiting.shift(); probe; probe = waiting.shift()) await run(view, probe, say, signal);
    });
    await Promise.all(turns);
  } finally {
    await kernel.close();
    netlink.close();
    await nftables.close();
  }
}

async function run(view: View, probe: Probe, say: (fact: ProbeFact) => void, signal: AbortSignal): Promise<void> {
  const tell: Say = (fact: Fact) => say({ probe: probe.id, ...fact });
  try {
    await ask(view, probe, tell, signal);
  } catch (error) {
    // What a probe cannot look at is a finding, not the end of the others.
    if (!isFault(error)) view.log.error('bug in a probe', { error });
    tell(unknown('network', `${probe.ask?.$case ?? 'a probe'} could not be looked at: ${describe(error)}`, ''));
  }
}

async function ask(view: View, { ask: question }: Probe, say: Say, signal: AbortSignal): Promise<void> {
  switch (question?.$case) {
    case 'host':
      return probeHost(view, say);
    case 'way':
      return probeWay(view, question.value, say);
    case 'task':
      return probeTask(view, question.value, say);
    case 'service':
      return probeService(view, question.value, say);
    case 'name':
      return probeName(view, question.value, say);
    case 'reach':
      return probeReach(view, question.value, say);
    case 'watch':
      return probeWatch(view, question.value, signal, say);
    case 'show':
      return showNode(view, say);
    case 'steps':
      return probeSteps(view, question.value, say);
    default:
      say(unknown('network', 'this agent does not know that probe', 'upgrade the agent'));
  }
}
