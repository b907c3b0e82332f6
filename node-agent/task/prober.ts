/** Makes the probes of all tasks of the node: so many at once, each within its time, and none a burden to the others. */
import { describe, Fault } from '#proto/kernel/errors.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { HealthCheck } from '#proto/model/service.ts';
import { Limiter } from '../limiter.ts';
import type { ProbeResult } from './health.ts';
import { type ConnectFrom, networkProbe, type ProbeTarget } from './network-probes.ts';
import { type InsideParts, outputLimit, runInside } from './run-inside.ts';

export interface ProberParts extends InsideParts {
  /** Absent where there is no network to probe. */
  readonly connectFrom?: ConnectFrom | undefined;
}

/** Each is a process or two of the node. */
const mostCommands = 16;
/** Each is a socket. */
const mostSockets = 256;

export class Prober {
  readonly #parts: ProberParts;
  readonly #commands = new Limiter(mostCommands);
  readonly #sockets = new Limiter(mostSockets);

  constructor(parts: ProberParts) {
    this.#parts = parts;
  }

  /** One run of the check. Never rejects: what goes wrong is a failed probe, in words. Waiting for its turn is not of its time. */
  async probe(task: TaskId, check: HealthCheck, target: ProbeTarget): Promise<ProbeResult> {
    const overNetwork = networkProbe(check);
    if (!overNetwork) return this.#commands.run(() => this.#command(task, check));
    return this.#sockets.run(async () => {
      const limit = new AbortController();
      const timer = this.#parts.clock.after(check.timeoutMs, () => limit.abort(new Error(tooLong(check))));
      try {
        if (!this.#parts.connectFrom) throw new Fault('unsupported', 'this node makes no probes over the network');
        return { ok: true, output: await overNetwork(this.#parts.connectFrom, target, limit.signal) };
      } catch (error) {
        return { ok: false, output: (error as Error).message.slice(0, outputLimit) };
      } finally {
        timer.cancel();
      }
    });
  }

  async #command(id: TaskId, check: HealthCheck): Promise<ProbeResult> {
    const command = { command: commandOf(check.test), env: [], user: '', privileged: false, workingDir: '' };
    try {
      const { code, output, isLate } = await runInside(this.#parts, id, command, { limitMs: check.timeoutMs });
      if (isLate) return { ok: false, output: output === '' ? tooLong(check) : `${tooLong(check)}\n${output}` };
      const exited = `the check exited with ${code}`;
      if (code === 0) return { ok: true, output: output || exited };
      return { ok: false, output: output === '' ? exited : `${exited}: ${output}` };
    } catch (error) {
      return { ok: false, output: `the check could not be run: ${describe(error)}` };
    }
  }
}

function tooLong(check: HealthCheck): string {
  return `the check took longer than ${check.timeoutMs / 1_000} s`;
}

/** The command that a check's test means. Pure. */
export function commandOf(test: readonly string[]): readonly string[] {
  const [kind, ...rest] = test;
  return kind === 'CMD-SHELL' ? ['/bin/sh', '-c', rest.join(' ')] : kind === 'CMD' ? rest : test;
}
