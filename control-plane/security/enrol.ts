/** How a machine becomes a member: a join token is proven, a certificate issued, a node record written, all in one commit. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { hasFreeSubnet } from '#control-plane/reconcilers/subnets.ts';
import type { Change, Versioned } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import { enrolmentProof, tokenSecretHash } from '#proto/enrolment-proof.ts';
import type { EnrolRequest, EnrolResponse } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { newId, type Random } from '#proto/kernel/random.ts';
import type { OperatorTrust } from '#proto/model/authority.ts';
import type { Token } from '#proto/model/cluster.ts';
import { type NodeId, namePattern, nodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { noResources } from '#proto/model/resources.ts';
import { occupiesNode } from '#proto/model/task.ts';
import { formatToken } from '#proto/model/token.ts';
import { type Authority, dayMs, requestDer } from './certificates.ts';
import { certificateLifeMs } from './pki.ts';

export interface EnrolmentParts {
  readonly store: Store;
  readonly authority: Authority;
  /** Of the certificates of nodes; 90 days unless told. */
  readonly lifetimeMs?: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Operators may be away for longer than nodes. */
const operatorLives = 4;
/** Longest life of a join token. */
const maxTokenMs = 365 * dayMs;
const attempts = 8;

export class Enrolment {
  readonly #parts: EnrolmentParts;

  constructor(parts: EnrolmentParts) {
    this.#parts = parts;
  }

  /** A new join token; its text is told once and not kept. `uses` 0: no limit. Faults: `invalid`, and those of a commit. */
  async createToken(request: { readonly lifetimeMs: number; readonly uses: number }): Promise<{
    readonly text: string;
    readonly token: Token;
  }> {
    const { store, authority, clock, random } = this.#parts;
    if (!(request.lifetimeMs > 0 && request.lifetimeMs <= maxTokenMs))
      throw new Fault('invalid', 'a join token lives between a moment and a year', {
        remedy: 'give a lifetime such as 1h',
      });
    const secret = Buffer.from(random.bytes(32)).toString('base64url');
    const now = clock.now();
    const token: Token = {
      id: newId(random),
      secretHash: tokenSecretHash(secret),
      createdAtMs: now,
      expiresAtMs: now + request.lifetimeMs,
      // 0 means no limit in a request; a record that is used up is deleted.
      usesLeft: request.uses,
    };
    await store.seen(await store.commit([{ table: 'token', key: token.id, value: token, expect: 0 }]));
    return { text: formatToken({ caHash: authority.hash, id: token.id, secret }), token };
  }

  /** Faults: `not-found`, and those of a commit. */
  async revokeToken(id: string): Promise<void> {
    const { store } = this.#parts;
    const record = store.snapshot.get('token', id);
    if (!record)
      throw new Fault('not-found', `there is no join token ${id}`, {
        remedy: '`gantry token list` shows those there are',
      });
    await store.seen(await store.commit([{ table: 'token', key: id, value: undefined, expect: record.modRevision }]));
  }

  /** Makes the calling machine a member. Faults: `unauthenticated`, `invalid`, `exists`, `exhausted`, and those of a commit. */
  async enrol(request: EnrolRequest): Promise<EnrolResponse> {
    const { store, log } = this.#parts;
    const der = requestDer(request.csrPem);
    if (!namePattern.test(request.name))
      throw new Fault('invalid', `"${request.name}" cannot be the name of a node`, {
        remedy: 'use lower-case letters, digits, - and _, as in DNS; give one with --name',
      });
    for (let attempt = 1; ; attempt++) {
      const token = this.#proven(request, der);
      const node = this.#nodeFor(request, enrolmentOf(der));
      // Before the commit: a request that cannot be signed must not leave a member behind.
      const certificate = await this.#nodeCertificate(node, request.csrPem);
      try {
        const revision = await store.commit(this.#changes(request, node, token));
        await store.seen(revision);
        log.info('node enrolled', { node: node.name, revision });
        return this.#response(node.id, certificate);
      } catch (error) {
        // Two machines at once wanted the same name, the last subnet, or the same token: look again.
        if (attempt >= attempts || !isFault(error, 'conflict')) throw error;
        await this.#parts.clock.sleep(this.#parts.random.int(20 * attempt));
      }
    }
  }

  /** The next certificate of a node that is a member. Faults: `unauthenticated`, `invalid`. */
  async renew(id: NodeId, csrPem: string): Promise<EnrolResponse> {
    const node = this.#parts.store.snapshot.node(id);
    if (!node) throw new Fault('unauthenticated', `node ${id} is not a member of this cluster`);
    return this.#response(id, await this.#nodeCertificate(node, csrPem));
  }

  /** A client certificate for an operator on another machine. Faults: `invalid`. */
  async issueOperator(name: string, csrPem: string): Promise<string> {
    if (!namePattern.test(name)) throw new Fault('invalid', `"${name}" cannot be the name of an operator`);
    const { authority, clock } = this.#parts;
    const lifetimeMs = operatorLives * this.#lifetimeMs;
    // Before it is issued: a rotation of the CA must know whom to wait for.
    await this.#noteOperator(name, { issuer: authority.hash, expiresAtMs: clock.now() + lifetimeMs });
    return authority.issue({
      csrPem,
      commonName: name,
      role: 'operator',
      hosts: [],
      server: false,
      lifetimeMs,
    });
  }

  get #lifetimeMs(): number {
    return this.#parts.lifetimeMs ?? certificateLifeMs;
  }

  async #noteOperator(name: string, trust: OperatorTrust): Promise<void> {
    const { store, clock, random } = this.#parts;
    for (let attempt = 1; ; attempt++) {
      const held = store.snapshot.get('authority', 'ca');
      if (!held) return;
      const value = { ...held.value, operators: { ...held.value.operators, [name]: trust } };
      try {
        await store.seen(await store.commit([{ table: 'authority', key: 'ca', value, expect: held.modRevision }]));
        return;
      } catch (error) {
        if (attempt >= attempts || !isFault(error, 'conflict')) throw error;
        await clock.sleep(random.int(20 * attempt));
      }
    }
  }

  /** The token, where the request proves its secret. All that can be wrong looks alike to who does not have it. */
  #proven(request: EnrolRequest, der: Uint8Array): { readonly value: Token; readonly modRevision: number } {
    const record = this.#parts.store.snapshot.get('token', request.tokenId);
    const expected = enrolmentProof(record?.value.secretHash ?? '00'.repeat(32), der);
    const given = Buffer.from(request.proof);
    const same = given.length === expected.length && timingSafeEqual(given, expected);
    if (!record || !same)
      throw new Fault('unauthenticated', 'the join token is not valid: unknown, used up, revoked, or wrong', {
        remedy: 'make a new one on a manager: gantry token create',
      });
    if (record.value.expiresAtMs <= this.#parts.clock.now())
      throw new Fault('unauthenticated', 'the join token has expired', {
        remedy: 'make a new one on a manager: gantry token create',
      });
    return record;
  }

  /** The record to write: a new one, that of the member it was and is no more, or one of this name whose machine never spoke. */
  #nodeFor({ name, former }: EnrolRequest, enrolment: string): Node {
    const { store, random, clock } = this.#parts;
    const now = clock.now();
    const replaced = this.#replacedBy({ name, former });
    for (const node of store.snapshot.all('node')) {
      if (node.name !== name || node.id === replaced?.value.id) continue;
      const isOwn = isSame(node, former);
      if (node.state !== 'down' && node.bootId !== '' && !(isOwn && node.state === 'unknown'))
        throw new Fault('exists', `a node named ${name} is a member and ${node.state}`, {
          remedy: `give this machine another --name, or remove the other first: gantry node rm ${name}`,
        });
      // What tasks of that node have written is not on another machine.
      if (!neverSpoke(node) && !isOwn && node.enrolment !== enrolment) throw this.#isAnother(node);
      const singleton = [...store.snapshot.tasksOnNode(node.id)].find((task) => task.singleton && occupiesNode(task));
      if (singleton)
        throw new Fault('exists', `${singleton.serviceName}, which must never run twice, may run on node ${name}`, {
          remedy: 'its lease is over some seconds after it was last heard: try again then',
        });
      return { ...node, bootId: '', joinedAtMs: now, enrolment };
    }
    // The leader gives it one as soon as it has said what it is.
    if (!hasFreeSubnet(store.snapshot, now))
      throw new Fault('exhausted', 'the cluster network has no subnet left for another node', {
        remedy: 'remove nodes that are gone: gantry node rm',
      });
    return {
      id: nodeId(newId(random)),
      name,
      labels: {},
      availability: 'active',
      state: 'unknown',
      message: 'enrolled, not heard of yet',
      platform: { os: '', architecture: '', variant: '' },
      capacity: noResources,
      address: '',
      subnet: '',
      pinnedSubnet: '',
      link: '',
      address6: '',
      foreignNetworks: [],
      wireguardKey: '',
      bootId: '',
      agentVersion: '',
      kernel: '',
      components: {},
      runtimes: [],
      joinedAtMs: now,
      enrolment,
      stateAtMs: now,
      away: '',
      fenced: false,
      unaccounted: false,
    };
  }

  /**
   * The record of that name that came with a backup, where its machine was not heard since: another one takes the name, as
   * another node. What ran and lay on the first one is not on this.
   */
  #replacedBy({ name, former }: Pick<EnrolRequest, 'name' | 'former'>): Versioned<Node> | undefined {
    const { snapshot } = this.#parts.store;
    const found = [...snapshot.all('node')].find((node) => node.name === name);
    if (found && isSame(found, former)) return undefined;
    return found?.restored && found.state !== 'ready' ? snapshot.get('node', found.id) : undefined;
  }

  #isAnother({ id, name, state }: Node): Fault {
    const volumes = [...this.#parts.store.snapshot.all('volume')].filter((volume) => volume.nodeId === id);
    const names = volumes.map((volume) => volume.name).sort();
    const data = names.length > 0 ? `; that node has the data of volume ${names.join(', ')}` : '';
    const give = `gantry node rm ${name}${names.length > 0 ? ' --force' : ''}`;
    return new Fault(
      'exists',
      `a node named ${name} is a member and ${state}, and this is another machine, or another disk${data}`,
      {
        remedy: `give this machine another --name; or, where that machine does not come back, give it up first: ${give}`,
      },
    );
  }

  #changes(
    request: EnrolRequest,
    node: Node,
    token: { readonly value: Token; readonly modRevision: number },
  ): Change[] {
    const { snapshot } = this.#parts.store;
    const changes: Change[] = [
      { table: 'node', key: node.id, value: node, expect: snapshot.get('node', node.id)?.modRevision ?? 0 },
    ];
    const replaced = this.#replacedBy(request);
    if (replaced)
      changes.push({ table: 'node', key: replaced.value.id, value: undefined, expect: replaced.modRevision });
    const { usesLeft, id } = token.value;
    // Also written where nothing is counted: a token revoked at this moment must not let anybody in.
    changes.push({
      table: 'token',
      key: id,
      value: usesLeft === 1 ? undefined : { ...token.value, usesLeft: Math.max(0, usesLeft - 1) },
      expect: token.modRevision,
    });
    // Written unchanged: it makes enrolments on several replicas take turns, so that no two get one name, or the last subnet.
    const cluster = snapshot.get('cluster', 'config');
    if (cluster) changes.push({ table: 'cluster', key: 'config', value: cluster.value, expect: cluster.modRevision });
    return changes;
  }

  #nodeCertificate(node: Node, csrPem: string): Promise<string> {
    return this.#parts.authority.issue({
      csrPem,
      commonName: node.id,
      role: 'node',
      enrolment: node.enrolment,
      // Its name is the machine's choice, which may be ours: a node must not be able to stand in for a server.
      hosts: [],
      server: false,
      lifetimeMs: this.#lifetimeMs,
    });
  }

  #response(id: NodeId, certificatePem: string): EnrolResponse {
    return {
      nodeId: id,
      certificatePem,
      caPem: this.#parts.authority.trust,
      clusterId: this.#parts.store.snapshot.cluster?.id ?? '',
    };
  }
}

/** It has enrolled, and never described itself: it had neither tasks nor volumes. */
function neverSpoke({ bootId, agentVersion }: Node): boolean {
  return bootId === '' && agentVersion === '';
}

/** The machine that joins has the certificate of that member on its disk, where the volumes are. */
function isSame(node: Node, former: EnrolRequest['former']): boolean {
  return former !== undefined && former.nodeId === node.id && former.enrolment === (node.enrolment ?? '');
}

/** The same for a request that is repeated since its answer was lost, and for no other. */
function enrolmentOf(der: Uint8Array): string {
  return createHash('sha256').update(der).digest('hex').slice(0, 32);
}
