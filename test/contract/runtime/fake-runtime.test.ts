/** The fake passes the contract that it stands in for. */
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { shellRequest } from '#test/support/container-lab.ts';
import { type FakeBehaviour, FakeContainerHost, FakeRuntime } from '#test/support/fake-runtime.ts';
import { type Role, runtimeContract } from './runtime-contract.ts';

const exec = () => ({ stdout: 'out\n', stderr: 'err\n', exitCode: 5 });
const behaviours: Record<Role, FakeBehaviour> = {
  stays: { exec },
  'exits-7': { exitAfterMs: 20, exitCode: 7 },
  'ignores-term': { ignoresSignals: true },
  refused: { createFault: new Fault('invalid', 'the container could not be created: no such file: /bin/nothing') },
};

runtimeContract('the fake runtime', async () => {
  const host = new FakeContainerHost(systemClock);
  const roles = new Map<TaskId, Role>();
  const behaviour = ({ id }: { readonly id: TaskId }) => behaviours[roles.get(id)!];
  return {
    open: async () => new FakeRuntime({ clock: systemClock, host, behaviour }),
    request(role) {
      const request = shellRequest({ rootfs: '/', netnsPath: '/', logs: '/' }, role);
      roles.set(request.id, role);
      return request;
    },
    close: async () => {},
  };
});
