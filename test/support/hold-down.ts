/** Ends a service of a sandbox's host and keeps it from being started again, for stories of parts that are away. */
import type { Sandbox } from '#node-agent/sandbox/sandbox.ts';
import { eventually } from './eventually.ts';

/** `pattern`: pgrep's words for its process. `release` lets the host start it again. */
export async function holdDown(sandbox: Sandbox, host: string, pattern: string): Promise<{ release(): Promise<void> }> {
  const find = `pid=$(pgrep -o ${pattern}) && keeper=$(ps -o ppid= -p $pid)`;
  const hold = `${find} && kill -STOP $keeper && kill -9 $pid && echo $keeper`;
  const keeper = await eventually(async () => (await sandbox.run(host, ['sh', '-c', hold])).trim());
  return {
    async release() {
      await sandbox.run(host, ['kill', '-CONT', keeper]);
    },
  };
}
