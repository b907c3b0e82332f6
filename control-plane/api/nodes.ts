/** Nodes: drain, pause, activate, label, remove. */
import { removeNode as removal, setAvailability, setNodeLabels } from '#control-plane/reconcilers/service-changes.ts';
import type { RemoveNodeRequest, UpdateNodeRequest } from '#proto/gen/gantry/v1/operator.ts';
import type { Node as WireNode } from '#proto/gen/gantry/v1/types.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Node } from '#proto/model/node.ts';
import { isLabelKey } from '#proto/model/validate.ts';
import { toWire } from '#proto/model/wire.ts';
import { findNode } from './names.ts';
import { commitWish, type OperatorParts } from './parts.ts';

const availabilities: readonly Node['availability'][] = ['active', 'drain', 'pause'];

export async function updateNode(parts: OperatorParts, request: UpdateNodeRequest): Promise<WireNode> {
  const { setLabels, removeLabels } = request;
  const availability = availabilities.find((one) => one === request.availability);
  if (request.availability !== '' && !availability)
    throw new Fault('invalid', `"${request.availability}" is no availability of a node`, {
      remedy: `use ${availabilities.join(', ')}`,
    });
  for (const key of Object.keys(setLabels))
    if (!isLabelKey(key))
      throw new Fault('invalid', `"${key}" cannot name a label`, { remedy: 'use letters, digits, ., -, _ and /' });
  const { id } = findNode(parts.store.snapshot, request.name);
  if (availability) await commitWish(parts, (context) => setAvailability(context, id, availability));
  if (Object.keys(setLabels).length + removeLabels.length > 0)
    await commitWish(parts, (context) => setNodeLabels(context, id, setLabels, removeLabels));
  return toWire<Node>(findNode(parts.store.snapshot, id));
}

export async function removeNode(parts: OperatorParts, request: RemoveNodeRequest): Promise<WireNode> {
  const node = findNode(parts.store.snapshot, request.name);
  await commitWish(parts, (context) => removal(context, node.id, request.force));
  return toWire<Node>(node);
}
