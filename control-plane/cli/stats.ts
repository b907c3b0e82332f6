/** `gantry stats`: two looks, so that processor time becomes a share. */
import { ListRequest } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { taskName } from '#proto/model/ids.ts';
import { type CommonOptions, methods, withSession } from './session.ts';
import { bytes, table } from './words.ts';

const betweenLooksMs = 500;

export function stats(options: CommonOptions, service = ''): Promise<number> {
  return withSession(options, async (session) => {
    const first = await session.call(methods.stats, { service });
    await systemClock.sleep(betweenLooksMs);
    const second = await session.call(methods.stats, { service });
    const { tasks } = await session.call(methods.list, ListRequest.create({ kind: 'task', service }));
    const names = new Map(tasks.map((task) => [task.id, task]));
    const before = new Map(first.tasks.map((figures) => [figures.taskId, figures]));
    const figures = second.tasks
      .map((now) => {
        const task = names.get(now.taskId);
        const then = before.get(now.taskId);
        const elapsed = then ? (now.atMs - then.atMs) / 1_000 : 0;
        const cpuPercent = then && elapsed > 0 ? ((now.cpuSeconds - then.cpuSeconds) / elapsed) * 100 : 0;
        return { name: task ? taskName(task) : now.taskId, node: task?.nodeName ?? '', cpuPercent, ...now };
      })
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    if (session.json) session.printJson({ tasks: figures, unreachableNodes: second.unreachableNodes });
    else {
      const rows = figures.map((one) => [
        one.name,
        one.node,
        `${one.cpuPercent.toFixed(1)} %`,
        one.memoryLimitBytes > 0
          ? `${bytes(one.memoryBytes)} / ${bytes(one.memoryLimitBytes)}`
          : bytes(one.memoryBytes),
        String(one.pids),
        bytes(one.networkReceivedBytes),
        bytes(one.networkSentBytes),
      ]);
      session.print(table(['TASK', 'NODE', 'CPU', 'MEMORY', 'PIDS', 'RECEIVED', 'SENT'], rows, session.colours.bold));
      if (second.unreachableNodes.length > 0)
        process.stderr.write(`not reached: ${second.unreachableNodes.join(', ')}\n`);
    }
    return 0;
  });
}
