/** Replicas that contend for the lead over one memory store on a fake clock, with everything that can come between them. */
import { Leader, type LeaderTiming, type Successor } from '#control-plane/leader.ts';
import { MemoryEtcd, type MemoryStore } from '#control-plane/store/memory-store.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { FakeClock } from './fake-clock.ts';

export interface Replica {
  readonly name: string;
  readonly address: string;
  readonly store: MemoryStore;
  readonly leader: Leader;
  /** Epochs it has begun to lead with, and those that have ended. */
  readonly began: number[];
  readonly ended: number[];
  /** Who leads after it, by their own word. */
  readonly succeeded: Successor[];
  /** Others hear its answers to probes. */
  audible: boolean;
  start(): Promise<void>;
  close(): Promise<void>;
}

export class ReplicaLab {
  readonly clock = new FakeClock();
  readonly etcd = new MemoryEtcd({ clock: this.clock, commitMs: 1, deliverMs: 1 });
  readonly replicas: Replica[] = [];
  #added = 0;

  /** A replica that has not started yet. */
  add(name: string, timing: Partial<LeaderTiming> = {}): Replica {
    const store = this.etcd.open();
    const address = `${name}#${this.#added++}`;
    const began: number[] = [];
    const ended: number[] = [];
    const succeeded: Successor[] = [];
    const leader = new Leader({
      store,
      clock: this.clock,
      log: silentLog,
      self: { replica: name, address },
      timing,
      probe: async (dialled) => {
        await this.clock.sleep(1);
        const target = this.replicas.find((candidate) => candidate.address === dialled && candidate.audible);
        if (!target || !replica.audible) throw new Fault('unavailable', 'no answer');
        return target.leader.epoch;
      },
      replicas: () => this.replicas.map((one) => one.address),
      succeeded: (by) => void succeeded.push(by),
      onLead: (epoch, scope) => {
        began.push(epoch);
        scope.defer(() => void ended.push(epoch));
      },
    });
    const replica: Replica = {
      name,
      address,
      store,
      leader,
      began,
      ended,
      succeeded,
      audible: true,
      start: () => this.during(leader.start()),
      close: async () => {
        replica.audible = false;
        await this.during(leader.close());
        await store.close();
      },
    };
    this.replicas.push(replica);
    return replica;
  }

  /** Lets time pass until `work` is done. */
  async during<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const finished = work.finally(() => {
      done = true;
    });
    finished.catch(() => {});
    for (let ms = 0; !done && ms < 60_000; ms += 1) await this.clock.pass(1);
    return finished;
  }
}
