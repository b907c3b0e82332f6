/** What the deciders keep in mind between two looks: usage of nodes, homes of volumes and addresses, both following the snapshot and a step ahead of it. */

import { Ledger } from '#control-plane/scheduler/ledger.ts';
import { Scheduler } from '#control-plane/scheduler/place.ts';
import type { Change, Delta } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { Zones } from '#proto/model/calendar.ts';
import type { NodeId, ServiceId, TaskId } from '#proto/model/ids.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';
import { Addresses } from './addresses.ts';
import { Claims } from './claims.ts';
import type { Subnets } from './decide-nodes.ts';
import { NetworkAddresses } from './network-addresses.ts';
import type { Move } from './rebalance.ts';
import { same } from './same.ts';
import { adviseSubnets, messageOf } from './subnets.ts';

export class Books {
  readonly ledger: Ledger;
  readonly scheduler: Scheduler;
  readonly addresses: Addresses;
  readonly networkAddresses: NetworkAddresses;
  readonly claims: Claims;
  /** What the rebalancer wants moved next, until the decision about the service has seen it. */
  readonly moves = new Map<ServiceId, Move>();
  readonly zones = new Zones();
  /** As last advised, and taken; undefined: something that it depends on has changed since, or may have. */
  #subnets: Subnets | undefined;

  constructor(snapshot: Snapshot, now: number) {
    this.ledger = Ledger.of(snapshot);
    this.scheduler = new Scheduler(this.ledger);
    this.claims = new Claims(this.ledger);
    this.addresses = Addresses.of(snapshot, now);
    this.networkAddresses = NetworkAddresses.of(snapshot, now);
  }

  /** What `adviseSubnets` says, without looking at every node where all have what they should and nothing about them has changed. */
  subnets(snapshot: Snapshot, now: number): Subnets {
    if (this.#subnets) return this.#subnets;
    const advice = adviseSubnets(snapshot, now);
    const taken = [...advice].every(([node, told]) => {
      // Who waits for a subnet may get it with time, or when a task ends.
      const isSettled = told.subnet !== '' && told.message === '';
      return isSettled && node.subnet === told.subnet && node.message === messageOf(node, told);
    });
    const subnets = { advice, taken };
    if (taken) this.#subnets = subnets;
    return subnets;
  }

  apply(delta: Delta, now: number): void {
    this.ledger.apply(delta);
    for (const change of delta.changes) {
      if (change.table === 'node' || change.table === 'network' || change.table === 'cluster')
        this.#subnets = undefined;
      if (change.table === 'task') {
        this.addresses.setTask(change.key as TaskId, change.after, now);
        this.networkAddresses.setTask(change.key as TaskId, change.after, now);
      } else if (change.table === 'node') {
        this.addresses.setNode(change.key as NodeId, change.after, now);
        this.networkAddresses.setNode(change.key as NodeId, change.after, now);
      } else if (change.table === 'service') {
        this.addresses.setService(change.key as ServiceId, change.after, now);
        this.networkAddresses.setService(change.key as ServiceId, change.after);
      } else if (change.table === 'network') this.networkAddresses.setNetwork(change.key, change.after);
    }
  }

  /** A task as it is about to be: counted at once, so that the next decision sees it. */
  plan(task: Task, now: number): void {
    this.ledger.setTask(task.id, task);
    if (!occupiesNode(task)) return;
    this.addresses.setTask(task.id, task, now);
    this.networkAddresses.setTask(task.id, task, now);
  }

  /** A task whose record is about to go. */
  planForgotten(id: TaskId): void {
    this.ledger.setTask(id, undefined);
  }

  /**
   * Back to what the snapshot says of the records of `changes`, which were not committed. `unsure`: they may have been
   * after all, so their addresses rest instead of being handed out again.
   */
  revert(snapshot: Snapshot, changes: readonly Change[], now: number, unsure: boolean): void {
    for (const change of changes) {
      if (change.table === 'task') {
        const id = change.key as TaskId;
        const task = snapshot.task(id);
        this.ledger.setTask(id, task);
        if (task?.address !== (change.value?.address ?? '')) {
          if (!unsure) this.addresses.forgetPlanned(id);
          this.addresses.setTask(id, task, now);
        }
        if (!same(task?.addresses ?? [], change.value?.addresses ?? [])) {
          if (!unsure) this.networkAddresses.forgetPlanned(id);
          this.networkAddresses.setTask(id, task, now);
        }
      } else if (change.table === 'volume') {
        this.ledger.setVolume(change.key, snapshot.get('volume', change.key)?.value);
      } else if (change.table === 'service') {
        this.addresses.setService(change.key as ServiceId, snapshot.service(change.key as ServiceId), now);
      }
    }
  }
}
