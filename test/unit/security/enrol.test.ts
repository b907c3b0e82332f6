/** Joining: what a token lets in, and what it does not. */
import { X509Certificate } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import {
  type Authority,
  createAuthority,
  createRequest,
  openAuthority,
  requestDer,
} from '#control-plane/security/certificates.ts';
import { Enrolment } from '#control-plane/security/enrol.ts';
import { MemoryEtcd, type MemoryStore } from '#control-plane/store/memory-store.ts';
import { enrolmentProof, tokenSecretHash } from '#proto/enrolment-proof.ts';
import type { EnrolRequest } from '#proto/gen/gantry/v1/agent.ts';
import { type Clock, systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { nodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { formatToken, parseToken } from '#proto/model/token.ts';
import { aCluster } from '#test/support/builders.ts';

const faultOf = (code: string) => expect.objectContaining({ name: 'Fault', code });
let laterMs = 0;
const clock: Clock = { ...systemClock, now: () => Date.now() + laterMs };
let etcd: MemoryEtcd;
let store: MemoryStore;
let authority: Authority;
let enrolment: Enrolment;

const another = () => new Enrolment({ store: etcd.open(), authority, clock, random: systemRandom, log: silentLog });

beforeEach(async () => {
  laterMs = 0;
  etcd = new MemoryEtcd({ clock: systemClock });
  store = etcd.open();
  const root = await createAuthority('test', Date.now(), systemRandom);
  authority = await openAuthority(root, Date.now, systemRandom);
  enrolment = new Enrolment({ store, authority, clock, random: systemRandom, log: silentLog });
  const cluster = aCluster({ id: 'c', network: '10.192.0.0/22' });
  await store.seen(await store.commit([{ table: 'cluster', key: 'config', value: cluster, expect: 0 }]));
});

const token = async (uses = 0, lifetimeMs = 60_000) => (await enrolment.createToken({ uses, lifetimeMs })).text;

async function request(name: string, tokenText: string, former?: EnrolRequest['former']): Promise<EnrolRequest> {
  const { id, secret } = parseToken(tokenText);
  const { csrPem } = await createRequest(name);
  return { tokenId: id, csrPem, proof: enrolmentProof(tokenSecretHash(secret), requestDer(csrPem)), name, former };
}

const enrolmentOf = ({ certificatePem }: { readonly certificatePem: string }) =>
  /^OU=(.+)$/m.exec(new X509Certificate(certificatePem).subject)?.[1];

async function change(id: string, fields: Partial<Node>): Promise<void> {
  const { value, modRevision } = store.snapshot.get('node', id)!;
  await store.seen(
    await store.commit([{ table: 'node', key: id, value: { ...value, ...fields }, expect: modRevision }]),
  );
}

describe('a join token', () => {
  test('has a text that reads back, and leaves no secret in the store', async () => {
    const text = await token();
    const parts = parseToken(text);
    expect(formatToken(parts)).toBe(text);
    expect(parts.caHash).toBe(authority.hash);
    expect(JSON.stringify([...store.snapshot.all('token')])).not.toContain(parts.secret);
  });

  test('that is malformed is refused without repeating it', () => {
    for (const text of ['', 'GANTRY-1.x.y.z', 'SWMTKN-1-abc']) expect(() => parseToken(text)).toThrow(/malformed/);
  });

  test('lets a machine in, with a certificate of its id', async () => {
    const answer = await enrolment.enrol(await request('h1', await token()));
    const node = store.snapshot.node(nodeId(answer.nodeId));
    expect(node).toMatchObject({ name: 'h1', state: 'unknown', availability: 'active', subnet: '' });
    const certificate = new X509Certificate(answer.certificatePem);
    expect(certificate.subject).toBe(`O=node\nOU=${node!.enrolment}\nCN=${answer.nodeId}`);
    expect(certificate.checkHost('h1')).toBeUndefined();
    expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.2']);
    expect(answer).toMatchObject({ caPem: authority.certificate, clusterId: 'c' });
  });

  test('does not let in who has not its secret, or another request than the one proven', async () => {
    const text = await token();
    const [one, two] = [await request('h1', text), await request('h2', text)];
    await expect(enrolment.enrol({ ...one, proof: Buffer.alloc(32) })).rejects.toEqual(faultOf('unauthenticated'));
    await expect(enrolment.enrol({ ...one, csrPem: two.csrPem })).rejects.toEqual(faultOf('unauthenticated'));
    await expect(enrolment.enrol({ ...one, tokenId: 'x'.repeat(25) })).rejects.toEqual(faultOf('unauthenticated'));
    expect(store.snapshot.count('node')).toBe(0);
  });

  test('expires', async () => {
    const text = await token(0, 60_000);
    laterMs = 60_001;
    await expect(enrolment.enrol(await request('h1', text))).rejects.toThrow('expired');
  });

  test('can be revoked', async () => {
    const text = await token();
    await enrolment.revokeToken(parseToken(text).id);
    await expect(enrolment.enrol(await request('h1', text))).rejects.toEqual(faultOf('unauthenticated'));
    await expect(enrolment.revokeToken(parseToken(text).id)).rejects.toEqual(faultOf('not-found'));
  });

  test('F36: of two uses lets in two of five that come at once, on two replicas', async () => {
    const text = await token(2);
    const other = another();
    const requests = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((name) => request(name, text)));
    const results = await Promise.allSettled(
      requests.map((one, index) => (index % 2 === 0 ? enrolment : other).enrol(one)),
    );
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(2);
    expect([...etcd.records].filter(({ table }) => table === 'node')).toHaveLength(2);
  });

  test('lives at most a year', async () => {
    for (const lifetimeMs of [0, -1, 400 * 86_400_000, Number.NaN])
      await expect(enrolment.createToken({ uses: 0, lifetimeMs })).rejects.toEqual(faultOf('invalid'));
  });
});

describe('a machine that joins', () => {
  test('is let in as long as there is a subnet for it, also when several join on two replicas at once', async () => {
    const text = await token();
    const other = another();
    await Promise.all(
      ['a', 'b', 'c', 'd'].map(async (name, index) =>
        (index % 2 === 0 ? enrolment : other).enrol(await request(name, text)),
      ),
    );
    const nodes = [...etcd.records].filter(({ table }) => table === 'node').map(({ value }) => value as Node);
    expect(new Set(nodes.map(({ name }) => name)).size).toBe(4);
    await expect(enrolment.enrol(await request('e', text))).rejects.toEqual(faultOf('exhausted'));
  });

  test('may not take the name of a member that is up', async () => {
    const text = await token();
    const { nodeId: id } = await enrolment.enrol(await request('h1', text));
    await change(id, { state: 'ready', bootId: 'b' });
    await expect(enrolment.enrol(await request('h1', text))).rejects.toEqual(faultOf('exists'));
  });

  /** A member that is down, and what its machine tells when it joins again. */
  const lost = async (fields: Partial<Node> = {}) => {
    const first = await enrolment.enrol(await request('h1', await token()));
    const described = { state: 'down', bootId: 'b', agentVersion: '1', labels: { zone: 'a' } } as const;
    await change(first.nodeId, { ...described, ...fields });
    return { first, former: { nodeId: first.nodeId, enrolment: enrolmentOf(first)! } };
  };

  test('again with the disk that it had is the node that it was', async () => {
    for (const state of ['down', 'unknown'] as const) {
      const { first, former } = await lost({ state });
      const again = await request('h1', await token(), former);
      const second = await enrolment.enrol(again);
      expect(second.nodeId).toBe(first.nodeId);
      expect(store.snapshot.node(nodeId(second.nodeId))?.labels).toEqual({ zone: 'a' });
      expect(enrolmentOf(second)).toBe(store.snapshot.node(nodeId(second.nodeId))?.enrolment);
      expect(enrolmentOf(second)).not.toBe(enrolmentOf(first));
      // The answer was lost, and it asks once more.
      expect((await enrolment.enrol(again)).nodeId).toBe(first.nodeId);
      const { modRevision } = store.snapshot.get('node', first.nodeId)!;
      await store.seen(
        await store.commit([{ table: 'node', key: first.nodeId, value: undefined, expect: modRevision }]),
      );
    }
  });

  test('is not taken for another one of its name that is down: the volumes of that are not on it', async () => {
    const { first, former } = await lost();
    const text = await token();
    const refused = expect.objectContaining({ code: 'exists', remedy: expect.stringContaining('gantry node rm h1') });
    await expect(enrolment.enrol(await request('h1', text))).rejects.toEqual(refused);
    for (const other of [
      { ...former, enrolment: 'x' },
      { ...former, nodeId: 'x'.repeat(25) },
    ])
      await expect(enrolment.enrol(await request('h1', text, other))).rejects.toEqual(refused);
    const volume = { name: 'shop_data', nodeId: nodeId(first.nodeId), nodeName: 'h1', createdAtMs: 1 };
    await store.seen(await store.commit([{ table: 'volume', key: 'shop_data', value: volume, expect: 0 }]));
    await expect(enrolment.enrol(await request('h1', text))).rejects.toMatchObject({
      message: expect.stringContaining('has the data of volume shop_data'),
      remedy: expect.stringContaining('gantry node rm h1 --force'),
    });
    // Nor after it has joined again, and before it has said anything.
    await enrolment.enrol(await request('h1', text, former));
    await expect(enrolment.enrol(await request('h1', text))).rejects.toEqual(refused);
  });

  test('takes the place of one of its name that never spoke', async () => {
    const text = await token();
    const first = await enrolment.enrol(await request('h1', text));
    const second = await enrolment.enrol(await request('h1', text));
    expect(second.nodeId).toBe(first.nodeId);
  });

  test('may ask again when the answer was lost', async () => {
    const one = await request('h1', await token());
    const first = await enrolment.enrol(one);
    const second = await enrolment.enrol(one);
    expect(second.nodeId).toBe(first.nodeId);
    expect(enrolmentOf(second)).toBe(enrolmentOf(first));
  });

  test('needs a name that can be looked up', async () => {
    const text = await token();
    for (const name of ['', 'Big', 'a b', '-x']) {
      const { csrPem, ...rest } = await request('h1', text);
      await expect(enrolment.enrol({ ...rest, csrPem, name })).rejects.toEqual(faultOf('invalid'));
    }
  });

  test('renews as long as it is a member', async () => {
    const first = await enrolment.enrol(await request('h1', await token()));
    const { nodeId: id } = first;
    const { csrPem } = await createRequest('h1');
    const renewed = await enrolment.renew(nodeId(id), csrPem);
    expect(renewed.nodeId).toBe(id);
    expect(enrolmentOf(renewed)).toBe(enrolmentOf(first));
    const record = store.snapshot.get('node', id)!;
    await store.seen(await store.commit([{ table: 'node', key: id, value: undefined, expect: record.modRevision }]));
    await expect(enrolment.renew(nodeId(id), csrPem)).rejects.toEqual(faultOf('unauthenticated'));
  });
});

describe('a cluster that was restored from a backup', () => {
  const restoredAtMs = 1_000_000;
  const restored = async (fields: Partial<Node>) => {
    const { nodeId: id } = await enrolment.enrol(await request('h1', await token()));
    await change(id, {
      bootId: 'b',
      agentVersion: '1',
      state: 'unknown',
      stateAtMs: restoredAtMs,
      restored: true,
      ...fields,
    });
    const { value, modRevision } = store.snapshot.get('cluster', 'config')!;
    const changed = { ...value, incarnation: 1, restoredAtMs };
    await store.seen(await store.commit([{ table: 'cluster', key: 'config', value: changed, expect: modRevision }]));
    return id;
  };

  test('gives the name of a node that was not heard since to another machine, as another node', async () => {
    for (const state of ['unknown', 'down'] as const) {
      const before = await restored({ state, stateAtMs: restoredAtMs + 9_000 });
      const { nodeId: now } = await enrolment.enrol(await request('h1', await token()));
      expect(now).not.toBe(before);
      expect([...store.snapshot.all('node')].map(({ id }) => id)).toEqual([now]);
      const { modRevision } = store.snapshot.get('node', now)!;
      await store.seen(await store.commit([{ table: 'node', key: now, value: undefined, expect: modRevision }]));
    }
  });

  test('does not where that node came back', async () => {
    await restored({ state: 'ready', stateAtMs: restoredAtMs + 1, restored: undefined });
    await expect(enrolment.enrol(await request('h1', await token()))).rejects.toEqual(faultOf('exists'));
    const [node] = store.snapshot.all('node');
    await change(node!.id, { state: 'unknown', stateAtMs: restoredAtMs + 2 });
    await expect(enrolment.enrol(await request('h1', await token()))).rejects.toEqual(faultOf('exists'));
  });
});
