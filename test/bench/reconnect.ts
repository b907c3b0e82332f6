/** A replica begins to lead, and a thousand agents dial it in the same moment: what that takes of it. */
import { type Reconnection, ReconnectLab } from '#test/support/reconnect-lab.ts';
import type { Figure } from './figure.ts';

const nodes = 1_000;
const tasks = 20_000;
const section = 'reconnect';
const mebi = 2 ** 20;
/** Services that change between the last word of the old leader and the hellos to the new one. */
const changed = 20;

export async function reconnect(): Promise<Figure[]> {
  const lab = await ReconnectLab.start(nodes, tasks);
  try {
    return [
      ...figures('that hold what they held', await lab.failOver({ held: 'all', changed })),
      ...figures('that hold nothing', await lab.failOver({ held: 'nothing' })),
    ];
  } finally {
    await lab.close();
  }
}

function figures(who: string, took: Reconnection): Figure[] {
  const { ms, cpuMs, grewBytes, bytes, downs, longestBeatMs, broken } = took;
  const none = { bound: 'at most', value: 0 } as const;
  return [
    { section, name: `${nodes} agents ${who} have what ${tasks} tasks are to them`, value: ms, unit: 'ms' },
    { section, name: '  processor time of the leader', value: cpuMs, unit: 'ms' },
    {
      section,
      name: '  its memory grew by',
      value: grewBytes / mebi,
      unit: 'MiB',
      target: { bound: 'at most', value: 300 },
    },
    { section, name: '  sent, to each', value: bytes / nodes / 1_024, unit: 'KiB' },
    { section, name: '  longest wait of a beat', value: longestBeatMs, unit: 'ms' },
    { section, name: '  streams that broke', value: broken, unit: '', target: none },
    { section, name: '  hosts taken for dead', value: downs, unit: '', target: none },
  ];
}
