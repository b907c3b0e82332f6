/** A replica begins to lead, and a thousand agents dial it in the same moment: what that takes of it. */
import { type Before, type Reconnection, ReconnectLab } from '#test/support/reconnect-lab.ts';
import type { Figure } from './figure.ts';

const section = 'reconnect';
const mebi = 2 ** 20;
/** Services that change between the last word of the old leader and the hellos to the new one. */
const changed = 20;

/** `defer`: what is to be done should the bench be stopped meanwhile. */
export async function reconnect(
  nodes: number,
  tasks: number,
  defer: (close: () => Promise<void>) => void,
): Promise<Figure[]> {
  const took = async (before: Before) => {
    // One each: of one that not all agents came back to, hosts may have been given up.
    const lab = await ReconnectLab.start(nodes, tasks);
    defer(() => lab.close());
    try {
      return await lab.failOver(before);
    } finally {
      await lab.close();
    }
  };
  // The first finds code that has not run yet.
  await took({ held: 'all', changed });
  return [
    ...figures(nodes, tasks, 'that hold what they held', await took({ held: 'all', changed })),
    ...figures(nodes, tasks, 'that are connected too', await took({ held: 'all', changed, warm: true })),
    ...figures(nodes, tasks, 'that hold nothing', await took({ held: 'nothing' })),
  ];
}

function figures(nodes: number, tasks: number, who: string, took: Reconnection): Figure[] {
  const { ms, left, cpuMs, agentsCpuMs, lateMs, grewBytes, bytes, downs, longestBeatMs, broken } = took;
  const none = { bound: 'at most', value: 0 } as const;
  const served = Math.max(1, nodes - left);
  const each = { what: 'spent by the agent itself', value: agentsCpuMs / nodes };
  return [
    { section, name: `${nodes} agents ${who} have what ${tasks} tasks are to them`, value: ms, unit: 'ms' },
    { section, name: '  agents that did not have it in time', value: left, unit: '', target: none },
    { section, name: '  processor time of the leader', value: cpuMs, unit: 'ms' },
    { section, name: '  of that, for each agent', value: cpuMs / served, unit: 'ms', beside: each },
    { section, name: '  the leader had, of one processor', value: (100 * cpuMs) / ms, unit: '%' },
    { section, name: '  turns of its event loop were late, p99', value: lateMs, unit: 'ms' },
    {
      section,
      name: '  its memory grew by',
      value: grewBytes / mebi,
      unit: 'MiB',
      target: { bound: 'at most', value: 300 },
    },
    { section, name: '  sent, to each', value: bytes / served / 1_024, unit: 'KiB' },
    { section, name: '  longest wait of a beat', value: longestBeatMs, unit: 'ms' },
    { section, name: '  streams that broke', value: broken, unit: '', target: none },
    { section, name: '  hosts taken for dead', value: downs, unit: '', target: none },
  ];
}
