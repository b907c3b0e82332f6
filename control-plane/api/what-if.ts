/** `gantry whatif`: names become records, and the deciders say what would follow. */
import { type Supposition, whatIf } from '#control-plane/controllers/what-if.ts';
import { scaleService } from '#control-plane/reconcilers/service-changes.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { WhatIfRequest, WhatIfResponse } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type ServiceId, taskName } from '#proto/model/ids.ts';
import { toWire } from '#proto/model/wire.ts';
import { findNode, findService, nameOfService } from './names.ts';
import { type OperatorParts, wishContext } from './parts.ts';
import { checkReplicas } from './services.ts';

const mostAdded = 1_000;

/** Faults: `not-found`, `invalid` (ambiguous, or nothing supposed), those of a scale. */
export function supposed(parts: OperatorParts, request: WhatIfRequest): WhatIfResponse {
  const context = wishContext(parts);
  const { snapshot, now } = context;
  const nodes = (names: readonly string[]) => names.map((name) => findNode(snapshot, name));
  const scaled = Object.entries(request.scale).map(([name, replicas]) => {
    checkReplicas(name, replicas);
    return { service: findService(snapshot, name), replicas };
  });
  const supposition: Supposition = {
    killed: nodes(request.kill),
    drained: nodes(request.drain),
    added: addedNodes(snapshot, request),
    changes: scaled.flatMap(({ service, replicas }) => scaleService(context, service.id, replicas)),
  };
  const { killed, drained, added } = supposition;
  if (killed.length + drained.length + scaled.length === 0 && !added)
    throw new Fault('invalid', 'nothing is supposed', {
      remedy: 'say --kill NODE, --drain NODE, --add N or --scale NAME=N',
    });
  const forecast = whatIf(snapshot, supposition, now);
  return {
    services: [...forecast.tasks].map(([serviceId, tasks]) => ({
      action: 'update',
      serviceId,
      name: nameOfService(snapshot.service(serviceId as ServiceId)!),
      details: [],
      tasks: [...tasks],
      disruption: '',
    })),
    nodes: forecast.nodes.map(({ node, tasksBefore, tasksAfter, reservedBefore, reservedAfter }) => ({
      node: node.name,
      state: node.state === 'ready' && node.availability === 'drain' ? 'drained' : node.state,
      tasksBefore,
      tasksAfter,
      reservedBefore: toWire(reservedBefore),
      reservedAfter: toWire(reservedAfter),
      capacity: toWire(node.capacity),
    })),
    moves: forecast.moves.map(({ task, taskId, fromName, toName, reason }) => {
      return { task: taskName(task), taskId, from: fromName, to: toName, reason };
    }),
  };
}

function addedNodes(snapshot: Snapshot, { add, like }: WhatIfRequest): Supposition['added'] {
  if (add === 0) return undefined;
  if (add > mostAdded) throw new Fault('invalid', `${add} nodes more are too many`, { remedy: `at most ${mostAdded}` });
  if (like !== '') return { count: add, like: findNode(snapshot, like) };
  const [first] = [...snapshot.all('node')]
    .filter(({ state, bootId }) => state === 'ready' && bootId !== '')
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  if (!first) throw new Fault('precondition', 'no node is ready: there is no telling what another one would be like');
  return { count: add, like: first };
}
