/** What lets others in: join tokens, logins at registries, certificates of operators. */
import type { Change } from '#control-plane/store/records.ts';
import type { Credential as WireCredential } from '#proto/gen/gantry/v1/agent.ts';
import type {
  CreateTokenRequest,
  CreateTokenResponse,
  IssueCertificateRequest,
  IssueCertificateResponse,
  RemoveCredentialRequest,
  RevokeTokenRequest,
} from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { tokenInfo } from './list.ts';
import { commitWish, type OperatorParts } from './parts.ts';

const hourMs = 3_600_000;

/** A token that lives an hour unless told; its text is told once and never kept. */
export async function createToken(parts: OperatorParts, request: CreateTokenRequest): Promise<CreateTokenResponse> {
  const lifetimeMs = request.lifetimeMs || hourMs;
  const { text, token } = await parts.enrolment.createToken({ lifetimeMs, uses: request.uses });
  return { token: text, info: tokenInfo(token) };
}

/** By the start of its id. Faults: `not-found`, `invalid` (ambiguous). Machines that have joined with it stay. */
export async function revokeToken(parts: OperatorParts, request: RevokeTokenRequest): Promise<void> {
  const start = request.id;
  const tokens = [...parts.store.snapshot.all('token')].filter(({ id }) => start.length >= 4 && id.startsWith(start));
  if (tokens.length > 1)
    throw new Fault('invalid', `"${start}" may mean ${tokens.map(({ id }) => id).join(' or ')}`, {
      remedy: 'write more of the id',
    });
  const [token] = tokens;
  if (!token) throw new Fault('not-found', `there is no token "${start}"`, { remedy: 'see gantry token ls' });
  await parts.enrolment.revokeToken(token.id);
}

/** The store seals the password at rest. */
export async function putCredential(parts: OperatorParts, request: WireCredential): Promise<void> {
  const { registry, username, password } = request;
  if (!/^[a-z0-9.-]+(:\d{1,5})?$/i.test(registry))
    throw new Fault('invalid', `"${registry}" is not a registry`, { remedy: 'write host[:port]' });
  if (username === '' || password === '')
    throw new Fault('invalid', 'a login needs a user name and a password', { remedy: 'give both' });
  await commitWish(parts, ({ snapshot }): Change[] => [
    {
      table: 'credential',
      key: registry,
      value: { registry, username, password },
      expect: snapshot.get('credential', registry)?.modRevision ?? 0,
    },
  ]);
}

/** Nodes are no longer given it. Fault: `not-found`. */
export async function removeCredential(parts: OperatorParts, { registry }: RemoveCredentialRequest): Promise<void> {
  await commitWish(parts, ({ snapshot }): Change[] => {
    const held = snapshot.get('credential', registry);
    if (!held)
      throw new Fault('not-found', `there is no login for "${registry}"`, {
        remedy: 'write the registry as it was given to gantry login',
      });
    return [{ table: 'credential', key: registry, value: undefined, expect: held.modRevision }];
  });
}

/** A certificate of role operator, for a context file. */
export async function issueCertificate(
  parts: OperatorParts,
  request: IssueCertificateRequest,
): Promise<IssueCertificateResponse> {
  const certificatePem = await parts.enrolment.issueOperator(request.name, request.csrPem);
  return { certificatePem, caPem: parts.authority.trust, addresses: [...parts.addresses] };
}
