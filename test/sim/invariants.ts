/** What must hold at every step of the store, whatever goes wrong. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Delta } from '#control-plane/store/store.ts';
import { containsAddress } from '#net/plan/cidr.ts';
import { assert } from '#proto/kernel/errors.ts';
import { mayAdvance, mayWant, occupiesNode, type Task } from '#proto/model/task.ts';

/** Throws where a step broke the law of states, gave away more than a node has, or an address twice. */
export function checkStep(snapshot: Snapshot, delta: Delta): void {
  const nodes = new Set<string>();
  for (const change of delta.changes) {
    if (change.table !== 'task') continue;
    if (change.before && change.after) checkLaw(change.before, change.after);
    if (change.after?.nodeId) nodes.add(change.after.nodeId);
  }
  for (const id of nodes) checkNode(snapshot, id);
  checkVips(snapshot);
}

function checkLaw(before: Task, after: Task): void {
  const name = `task ${before.serviceName}.${before.slot} ${before.id}`;
  assert(
    before.state === after.state || mayAdvance(before.state, after.state),
    `${name} went from ${before.state} to ${after.state}`,
  );
  assert(
    before.wanted === after.wanted || mayWant(before.wanted, after.wanted),
    `${name} was wanted ${before.wanted}, then ${after.wanted}`,
  );
  assert(before.nodeId === '' || before.nodeId === after.nodeId, `${name} moved`);
  assert(before.address === '' || before.address === after.address, `${name} changed its address`);
}

function checkNode(snapshot: Snapshot, id: string): void {
  const node = snapshot.node(id as never);
  if (!node) return;
  let cpuMillis = 0;
  let memoryBytes = 0;
  const addresses = new Map<string, Task>();
  for (const task of snapshot.tasksOnNode(node.id)) {
    if (!occupiesNode(task)) continue;
    cpuMillis += task.reservations.cpuMillis;
    memoryBytes += task.reservations.memoryBytes;
    const other = addresses.get(task.address);
    assert(!other, `${task.address} is held by ${other?.id} and ${task.id}`);
    assert(containsAddress(node.subnet, task.address), `${task.address} of ${task.id} is outside ${node.subnet}`);
    addresses.set(task.address, task);
  }
  assert(cpuMillis <= node.capacity.cpuMillis, `${node.name} has given away ${cpuMillis} millicores`);
  assert(memoryBytes <= node.capacity.memoryBytes, `${node.name} has given away ${memoryBytes} bytes`);
}

function checkVips(snapshot: Snapshot): void {
  const vips = new Set<string>();
  for (const { vip, id } of snapshot.all('service')) {
    if (vip === '') continue;
    assert(!vips.has(vip), `${vip} is the address of ${id} and another service`);
    vips.add(vip);
  }
}
