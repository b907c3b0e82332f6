/** Speaks to registries (OCI distribution spec 1.1): documents and blobs, with logins, retries and resumed downloads. */
import http from 'node:http';
import https from 'node:https';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Random } from '#proto/kernel/random.ts';
import { backoffMs } from '#proto/kernel/retry.ts';
import type { Credential } from '#proto/model/cluster.ts';
import { checkStep, type GetResponse, type HttpGetParts, httpGet, type Origin, Silence } from './http-get.ts';
import { insecureRegistries } from './insecure-registries.ts';
import { type Descriptor, digestOf, limits, mediaTypes, parseJson } from './oci.ts';
import { apiHost, formatReference, isDigest, type Reference } from './reference.ts';

export interface RegistryParts {
  readonly clock: Clock;
  readonly random: Random;
  /** HOST:PORT or networks that are spoken to in plain HTTP. */
  readonly insecureRegistries?: readonly string[];
  /** Hosts that may be sent a registry's login because they sign its tokens, beside the registry itself. */
  readonly authHosts?: Readonly<Record<string, string>>;
  readonly connectTimeoutMs?: number;
  readonly stallMs?: number;
}

/** Who asks, and until when. */
export interface Access {
  readonly credential?: Credential | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Document {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/**
 * Faults of all: `not-found`, `unauthenticated`, `forbidden`, `corrupt`, `unavailable`, `cancelled`; each names the registry.
 */
export interface Registry {
  /** The manifest or index that a reference (its digest, else its tag) means now; its digest is checked. */
  document(reference: Reference, access: Access): Promise<Document>;
  /** The bytes of a blob from `offset` to its end, resumed where a connection breaks. The caller checks the digest. */
  blob(reference: Reference, descriptor: Descriptor, offset: number, access: Access): AsyncIterable<Buffer>;
  close(): void;
}

const knownAuthHosts: Readonly<Record<string, string>> = {
  'docker.io': 'auth.docker.io',
  'registry.gitlab.com': 'gitlab.com',
};
const accept = [mediaTypes.index, mediaTypes.manifest, mediaTypes.dockerIndex, mediaTypes.dockerManifest].join(', ');
const retryPolicy = { initialMs: 200, maxMs: 5_000 };
/** Tries without a byte of progress before it is given up. */
const maxFruitless = 4;
const maxRetryAfterMs = 30_000;

/** A client of all registries; keeps connections and tokens. */
export function registryClient(parts: RegistryParts): Registry {
  const get: HttpGetParts = {
    clock: parts.clock,
    insecure: insecureRegistries(parts.insecureRegistries ?? []),
    connectTimeoutMs: parts.connectTimeoutMs ?? 5_000,
    stallMs: parts.stallMs ?? 10_000,
    secureAgent: new https.Agent({ keepAlive: true, maxSockets: 8, scheduling: 'lifo' }),
    plainAgent: new http.Agent({ keepAlive: true, maxSockets: 8, scheduling: 'lifo' }),
  };
  const session = new AuthSession(parts, get);
  const wait = (fruitless: number, error: unknown, signal: AbortSignal | undefined) =>
    parts.clock.sleep((error as Retryable).retryAfterMs ?? backoffMs(retryPolicy, fruitless, parts.random), signal);

  async function document(reference: Reference, access: Access): Promise<Document> {
    const where = formatReference(reference);
    const path = `manifests/${reference.digest || reference.tag}`;
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await session.get(reference, path, { accept }, access);
        if (response.status !== 200) throw await statusFault(response, reference, where, parts.clock.now());
        const bytes = await collect(response.body, where);
        const digest = digestOf(bytes);
        const promised = reference.digest || header(response, 'docker-content-digest');
        if (isDigest(promised) && promised !== digest)
          throw new Fault(
            'corrupt',
            `${where}: ${reference.registry} sent a manifest of digest ${digest} instead of ${promised}`,
          );
        return { digest, mediaType: header(response, 'content-type').split(';')[0]!.trim(), bytes };
      } catch (error) {
        if (attempt >= maxFruitless || error instanceof Silence || !(isRetryable(error) || isFault(error, 'corrupt')))
          throw error;
        await wait(attempt, error, access.signal);
      }
    }
  }

  async function* blob(
    reference: Reference,
    descriptor: Descriptor,
    offset: number,
    access: Access,
  ): AsyncGenerator<Buffer> {
    let position = offset;
    const where = `${formatReference(reference)}: blob ${descriptor.digest}`;
    for (let fruitless = 1; position < descriptor.size; fruitless++) {
      try {
        const range: Record<string, string> = position > 0 ? { range: `bytes=${position}-` } : {};
        const response = await session.get(reference, `blobs/${descriptor.digest}`, range, access);
        for await (const chunk of from(response, position, await checked(response))) {
          position += chunk.length;
          if (position > descriptor.size)
            throw new Fault('corrupt', `${where} is longer than the ${descriptor.size} bytes of its manifest`, {
              remedy: 'push the image again',
            });
          fruitless = 0;
          yield chunk;
        }
        if (position < descriptor.size)
          throw new Retryable(`${where} ended after ${position} of ${descriptor.size} bytes`);
      } catch (error) {
        if (fruitless >= maxFruitless || !isRetryable(error)) throw error;
        await wait(Math.max(1, fruitless), error, access.signal);
      }
    }
    async function checked(response: GetResponse): Promise<boolean> {
      if (response.status === 206) {
        const start = /^bytes (\d+)-/.exec(header(response, 'content-range'))?.[1];
        if (start !== undefined && Number(start) === position) return true;
        response.discard();
        throw new Retryable(`${where}: asked for byte ${position}, got "${header(response, 'content-range')}"`);
      }
      if (response.status === 200) return false;
      throw await statusFault(response, reference, where, parts.clock.now());
    }
  }

  return {
    document,
    blob,
    close() {
      get.secureAgent.destroy();
      get.plainAgent.destroy();
    },
  };
}

/** The part of a body that lies after `position`: a registry that knows no ranges sends all of it again. */
async function* from(response: GetResponse, position: number, ranged: boolean): AsyncGenerator<Buffer> {
  let skip = ranged ? 0 : position;
  for await (const chunk of response.body) {
    if (skip >= chunk.length) skip -= chunk.length;
    else {
      yield skip > 0 ? chunk.subarray(skip) : chunk;
      skip = 0;
    }
  }
}

/** Worth another try, after the time the registry asked for. */
class Retryable extends Fault {
  readonly retryAfterMs: number | undefined;
  constructor(message: string, retryAfterMs?: number) {
    super('unavailable', message, { remedy: 'try again later' });
    this.retryAfterMs = retryAfterMs;
  }
}

function isRetryable(error: unknown): boolean {
  return error instanceof Retryable || isFault(error, 'unavailable');
}

/** Sends a registry's login to nobody else, and remembers what its token service gave for it. */
class AuthSession {
  readonly #parts: RegistryParts;
  readonly #get: HttpGetParts;
  readonly #headers = new Map<string, { readonly value: string; readonly untilMs: number }>();
  readonly #origins = new Map<string, Origin>();

  constructor(parts: RegistryParts, get: HttpGetParts) {
    this.#parts = parts;
    this.#get = get;
  }

  async get(reference: Reference, path: string, headers: Record<string, string>, access: Access): Promise<GetResponse> {
    const host = apiHost(reference.registry);
    const plain = this.#get.insecure.has(reference.registry);
    const url = new URL(`${plain ? 'http' : 'https'}://${host}/v2/${reference.repository}/${path}`);
    const origin: Origin = this.#origins.get(url.host) ?? { host: url.host, reach: undefined };
    this.#origins.set(url.host, origin);
    const credential = credentialFor(reference, access.credential);
    const key = `${reference.registry}/${reference.repository} ${credential?.username ?? ''} ${credential?.password ?? ''}`;
    const known = this.#headers.get(key);
    const authorization = known && known.untilMs > this.#parts.clock.monotonic() ? known.value : undefined;
    const send = (value: string | undefined) =>
      httpGet(this.#get, {
        url,
        headers: { ...headers, ...(value && { authorization: value }) },
        origin,
        signal: access.signal,
      });
    const response = await send(authorization);
    if (response.status !== 401) return response;
    const challenge = header(response, 'www-authenticate');
    response.discard();
    const fresh = await this.#answer(challenge, url, reference, credential, origin, access.signal);
    if (!fresh) throw needsLogin(reference, credential);
    const answer = await send(fresh.value);
    if (answer.status === 401) {
      answer.discard();
      this.#headers.delete(key);
      throw needsLogin(reference, credential);
    }
    this.#headers.set(key, fresh);
    return answer;
  }

  async #answer(
    challenge: string,
    url: URL,
    reference: Reference,
    credential: Credential | undefined,
    origin: Origin,
    signal: AbortSignal | undefined,
  ): Promise<{ value: string; untilMs: number } | undefined> {
    const basic =
      credential && `Basic ${Buffer.from(`${credential.username}:${credential.password}`).toString('base64')}`;
    if (/^basic\b/i.test(challenge)) return basic ? { value: basic, untilMs: Number.POSITIVE_INFINITY } : undefined;
    if (!/^bearer\b/i.test(challenge))
      throw new Fault(
        'unauthenticated',
        `${reference.registry} wants a login of an unknown kind: "${challenge.slice(0, 100)}"`,
      );
    const fields = Object.fromEntries(
      [...challenge.matchAll(/([a-z]+)="([^"]*)"/gi)].map(([, name, value]) => [name!.toLowerCase(), value!]),
    );
    const realm = realmOf(fields.realm ?? '', reference);
    checkStep(this.#get, url, realm);
    if (fields.service) realm.searchParams.set('service', fields.service);
    realm.searchParams.set('scope', `repository:${reference.repository}:pull`);
    const trusted = realm.host === url.host || realm.host === this.#authHost(reference.registry);
    if (basic && !trusted)
      throw new Fault(
        'forbidden',
        `${reference.registry} asks to send its login to ${realm.host}, which is not known to sign its tokens`,
        {
          remedy: `configure ${realm.host} as the auth host of ${reference.registry} if that is meant`,
        },
      );
    const headers: Record<string, string> = basic ? { authorization: basic } : {};
    // A configured auth host is as much ours as the registry is.
    const towards = trusted ? { host: realm.host, reach: origin.reach } : origin;
    const response = await httpGet(this.#get, { url: realm, headers, origin: towards, signal });
    if (response.status === 401 || response.status === 403) {
      response.discard();
      throw needsLogin(reference, credential);
    }
    if (response.status !== 200)
      throw await statusFault(response, reference, `token from ${realm.host}`, this.#parts.clock.now());
    const answer = parseJson(await collect(response.body, realm.host), `token from ${realm.host}`);
    const token = answer.token ?? answer.access_token;
    if (typeof token !== 'string' || /[\r\n]/.test(token))
      throw new Fault('corrupt', `${realm.host} answered without a token`);
    const lifetimeS = typeof answer.expires_in === 'number' && answer.expires_in > 0 ? answer.expires_in : 60;
    return { value: `Bearer ${token}`, untilMs: this.#parts.clock.monotonic() + Math.max(5, lifetimeS - 10) * 1000 };
  }

  #authHost(registry: string): string | undefined {
    return this.#parts.authHosts?.[registry] ?? knownAuthHosts[registry];
  }
}

function realmOf(text: string, reference: Reference): URL {
  try {
    return new URL(text);
  } catch {
    throw new Fault('unauthenticated', `${reference.registry} names no token service: realm "${text.slice(0, 100)}"`);
  }
}

/** A login counts only for the registry it was given for. */
function credentialFor(reference: Reference, credential: Credential | undefined): Credential | undefined {
  if (!credential) return undefined;
  const bare = credential.registry.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  const registry = bare === 'index.docker.io' || bare === 'registry-1.docker.io' ? 'docker.io' : bare;
  return registry === reference.registry ? credential : undefined;
}

function needsLogin(reference: Reference, credential: Credential | undefined): Fault {
  return credential
    ? new Fault(
        'unauthenticated',
        `${reference.registry} refuses the login of ${credential.username} for ${reference.repository}`,
        {
          remedy: `gantry login ${reference.registry} with a login that may pull it`,
        },
      )
    : new Fault(
        'unauthenticated',
        `${reference.registry} wants a login for ${reference.repository}, or has no such image`,
        {
          remedy: `check the name, or gantry login ${reference.registry}`,
        },
      );
}

async function statusFault(response: GetResponse, reference: Reference, where: string, nowMs: number): Promise<Fault> {
  const { status } = response;
  const retryAfter = header(response, 'retry-after');
  response.discard();
  if (status === 404)
    return new Fault('not-found', `${reference.registry} has no ${where}`, {
      remedy: 'check the name and the tag, or push it',
    });
  if (status === 401) return needsLogin(reference, undefined);
  if (status === 403)
    return new Fault('forbidden', `${reference.registry} forbids ${where}`, {
      remedy: `gantry login ${reference.registry} with a login that may pull it`,
    });
  if (status === 429)
    return new Retryable(
      `${reference.registry} limits how often it is asked (HTTP 429)`,
      retryAfterMs(retryAfter, nowMs),
    );
  if (status >= 500 || status === 408)
    return new Retryable(
      `${reference.registry} fails with HTTP ${status} for ${where}`,
      retryAfterMs(retryAfter, nowMs),
    );
  return new Fault('invalid', `${reference.registry} answers HTTP ${status} for ${where}`);
}

function retryAfterMs(value: string, nowMs: number): number | undefined {
  if (value === '') return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - nowMs;
  return Number.isFinite(ms) ? Math.min(maxRetryAfterMs, Math.max(0, ms)) : undefined;
}

function header(response: GetResponse, name: string): string {
  const value = response.headers[name];
  return Array.isArray(value) ? (value[0] ?? '') : (value ?? '');
}

async function collect(body: AsyncIterable<Buffer>, where: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > limits.documentBytes)
      throw new Fault('corrupt', `${where}: a document of more than ${limits.documentBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
