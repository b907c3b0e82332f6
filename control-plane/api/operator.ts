/** The Operator service: each method in its noun's file, joined to gRPC here. */
import type * as grpc from '@grpc/grpc-js';
import { operatorOf } from '#control-plane/security/access.ts';
import type { RelayFrame } from '#proto/gen/gantry/v1/agent.ts';
import type { ExecInput, OperatorServer } from '#proto/gen/gantry/v1/operator.ts';
import { asOf, unary as plainUnary, serverStream } from '#proto/rpc.ts';
import { serverSideStream } from '#proto/rpc-stream.ts';
import { createToken, issueCertificate, putCredential, removeCredential, revokeToken } from './access.ts';
import { apply } from './apply.ts';
import { authority, rotateAuthority } from './authority.ts';
import { backup } from './backup.ts';
import { inspectWithChecks } from './checks.ts';
import { setCluster } from './cluster.ts';
import { putDocument, readConfig, removeDocument } from './documents.ts';
import { explain } from './explain.ts';
import { history } from './history.ts';
import { info } from './info.ts';
import { runJob, suspendJob } from './jobs.ts';
import { list } from './list.ts';
import { netProbe } from './net-probe.ts';
import { createNetwork, removeNetwork } from './networks.ts';
import { removeNode, updateNode } from './nodes.ts';
import type { OperatorParts } from './parts.ts';
import { progress } from './progress.ts';
import { rebalance } from './rebalance.ts';
import { releaseTask } from './release.ts';
import { rolloutStatus } from './rollout-status.ts';
import { scaling } from './scaling.ts';
import { pause, remove, restart, resume, rollback, scale } from './services.ts';
import { events, exec, logs, stats } from './streams.ts';
import { emptyTrash, undo } from './trash.ts';
import { removeVolume } from './volumes.ts';
import { supposed } from './what-if.ts';

/** The handlers of gantry.v1.Operator; who may call them is decided by who serves them. */
export function operatorService(parts: OperatorParts): OperatorServer {
  const unary = <Request, Response>(handler: Parameters<typeof plainUnary<Request, Response>>[0]) =>
    plainUnary(handler, () => asOf(parts.asOfMs()));
  return {
    apply: unary((request, call) => apply(parts, request, operatorOf(call))),
    progress: serverStream((request, signal) => progress(parts, request, signal)),
    list: unary(async (request) => list(parts, request)),
    inspect: unary((request) => inspectWithChecks(parts, request)),
    scale: unary(async (request, call) => scale(parts, request, operatorOf(call))),
    restart: unary((request, call) => restart(parts, request, operatorOf(call))),
    rollback: unary(async (request, call) => rollback(parts, request, operatorOf(call))),
    rolloutStatus: unary(async (request) => rolloutStatus(parts, request)),
    pauseRollout: unary((request, call) => pause(parts, request, operatorOf(call))),
    resumeRollout: unary((request, call) => resume(parts, request, operatorOf(call))),
    history: unary(async (request) => history(parts, request)),
    runJob: unary((request) => runJob(parts, request)),
    suspendJob: unary((request) => suspendJob(parts, request)),
    remove: unary((request) => remove(parts, request)),
    releaseTask: unary((request, call) => releaseTask(parts, request, operatorOf(call))),
    rebalance: unary((request) => rebalance(parts, request)),
    explain: unary((request) => explain(parts, request)),
    whatIf: unary(async (request) => supposed(parts, request)),
    updateNode: unary((request) => updateNode(parts, request)),
    removeNode: unary((request) => removeNode(parts, request)),
    createToken: unary((request) => createToken(parts, request)),
    revokeToken: unary((request) => revokeToken(parts, request).then(() => ({}))),
    putCredential: unary((request) => putCredential(parts, request).then(() => ({}))),
    removeCredential: unary((request) => removeCredential(parts, request).then(() => ({}))),
    issueCertificate: unary((request) => issueCertificate(parts, request)),
    events: serverStream((request, signal) => events(parts, request, signal)),
    logs: serverStream((request, signal) => logs(parts, request, signal)),
    exec: (call: grpc.ServerDuplexStream<ExecInput, RelayFrame>) => exec(parts, serverSideStream(call)),
    stats: unary((request) => stats(parts, request)),
    scaling: unary(async (request) => scaling(parts, request)),
    info: unary(() => info(parts)),
    setCluster: unary((request) => setCluster(parts, request)),
    rotateAuthority: unary((request) => rotateAuthority(parts, request)),
    authority: unary(async () => authority(parts)),
    backup: serverStream(() => backup(parts)),
    createNetwork: unary((request) => createNetwork(parts, request)),
    removeNetwork: unary((request) => removeNetwork(parts, request)),
    putDocument: unary((request) => putDocument(parts, request)),
    removeDocument: unary((request) => removeDocument(parts, request)),
    undo: unary((request) => undo(parts, request)),
    removeVolume: unary((request) => removeVolume(parts, request)),
    emptyTrash: unary((request) => emptyTrash(parts, request)),
    readConfig: unary(async (request) => readConfig(parts, request)),
    netProbe: serverStream((request, signal) => netProbe(parts, request, signal)),
  };
}
