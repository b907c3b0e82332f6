/** A node's certificate while the cluster changes its CA. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { type Authority, createAuthority, createRequest, openAuthority } from '#control-plane/security/certificates.ts';
import { IdentityKeeper } from '#node-agent/identity-keeper.ts';
import { isIssuedBy } from '#proto/certificates.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { nodeId } from '#proto/model/ids.ts';
import { eventually } from '#test/support/eventually.ts';

const data = mkdtempSync(join(tmpdir(), 'gantry-keeper-'));
let keeper: IdentityKeeper | undefined;
afterEach(() => {
  keeper?.close();
  rmSync(data, { recursive: true, force: true });
});

it('asks again where the replica it asked has not taken up the new CA yet', async () => {
  const { now } = systemClock;
  const [before, after] = await Promise.all(
    ['before', 'after'].map(async (name) =>
      openAuthority(await createAuthority(name, now(), systemRandom), now, systemRandom),
    ),
  );
  const issue = (authority: Authority, csrPem: string) =>
    authority.issue({ csrPem, commonName: 'n1', role: 'node', hosts: [], server: false, lifetimeMs: 86_400_000 });
  const { csrPem, key: keyPem } = await createRequest('n1');
  const certificatePem = await issue(before!, csrPem);
  const asked: string[] = [];
  keeper = new IdentityKeeper(
    {
      clock: systemClock,
      random: { ...systemRandom, int: () => 0 },
      log: silentLog,
      data,
      swapped: () => {},
      renew: async (csrPem) => {
        const authority = asked.length === 0 ? before! : after!;
        asked.push(authority.hash);
        return { nodeId: 'n1', certificatePem: await issue(authority, csrPem), caPem: authority.trust, clusterId: 'c' };
      },
    },
    { nodeId: nodeId('n1'), keyPem, certificatePem, caPem: before!.trust },
  );
  keeper.trust(after!.trust + before!.trust);
  await eventually(() => isIssuedBy(keeper!.identity.certificatePem, after!.trust));
  expect(asked).toEqual([before!.hash, after!.hash]);
});
