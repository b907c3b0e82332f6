/** A replica begins to lead, and a thousand agents dial it in the same moment: what that takes of it. */
import { ReconnectLab } from '#test/support/reconnect-lab.ts';
import type { Figure } from './figure.ts';

const [nodes, tasks] = [1_000, 20_000];
const section = 'reconnect';
const mebi = 2 ** 20;

export async function reconnect(): Promise<Figure[]> {
  const lab = await ReconnectLab.start(nodes, tasks);
  try {
    const { ms, cpuMs, grewBytes, bytes, downs, longestBeatMs } = await lab.failOver();
    return [
      { section, name: `${nodes} agents have what ${tasks} tasks are to them`, value: ms, unit: 'ms' },
      { section, name: '  processor time of the leader', value: cpuMs, unit: 'ms' },
      {
        section,
        name: '  its memory grew by',
        value: grewBytes / mebi,
        unit: 'MiB',
        target: { bound: 'at most', value: 300 },
      },
      { section, name: '  sent, to each', value: bytes / nodes / mebi, unit: 'MiB' },
      { section, name: '  longest wait of a beat', value: longestBeatMs, unit: 'ms' },
      { section, name: '  hosts taken for dead', value: downs, unit: '', target: { bound: 'at most', value: 0 } },
    ];
  } finally {
    await lab.close();
  }
}
