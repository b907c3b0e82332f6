/** One GET, guarded: no downgrade to plain HTTP, no credentials across a redirect, no strange hosts on private addresses, no endless silence. */
import { lookup as dnsLookup, type LookupAddress } from 'node:dns';
import http from 'node:http';
import https from 'node:https';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { InsecureRegistries } from './insecure-registries.ts';

export interface HttpGetParts {
  readonly clock: Clock;
  /** Spoken to in plain HTTP. */
  readonly insecure: InsecureRegistries;
  readonly connectTimeoutMs: number;
  /** The longest wait for an answer's head or for the next piece of its body. */
  readonly stallMs: number;
  readonly secureAgent: https.Agent;
  readonly plainAgent: http.Agent;
}

export interface GetRequest {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** The registry this is done for; another host may not lie nearer to us than this one does. */
  readonly origin: Origin;
  readonly signal: AbortSignal | undefined;
}

/** A registry's host, and how near it was found to be. */
export interface Origin {
  readonly host: string;
  reach: Reach | undefined;
}
type Reach = 0 | 1 | 2 | 3;

export interface GetResponse {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: AsyncIterable<Buffer>;
  /** Ends the exchange without reading the rest. */
  discard(): void;
}

const maxRedirects = 5;
/** A body slower than this over a whole `stallMs` counts as stalled: it drips to hold us. */
const minBytesPerSecond = 256;

const privateRanges = new BlockList();
for (const [net, bits] of [
  ['10.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['100.64.0.0', 10],
] as const)
  privateRanges.addSubnet(net, bits, 'ipv4');
privateRanges.addSubnet('fc00::', 7, 'ipv6');
const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addSubnet('0.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');
loopback.addAddress('::', 'ipv6');
const linkLocal = new BlockList();
linkLocal.addSubnet('169.254.0.0', 16, 'ipv4');
linkLocal.addSubnet('fe80::', 10, 'ipv6');

/** 0 public, 1 private, 2 this machine, 3 link-local (metadata services: never for a host that was not named by the user). */
export function reachOf(address: string): Reach {
  const plain = address.replace(/^\[|\]$/g, '').replace(/^::ffff:(?=\d+\.)/i, '');
  const family = isIP(plain) === 6 ? 'ipv6' : 'ipv4';
  if (linkLocal.check(plain, family)) return 3;
  if (loopback.check(plain, family)) return 2;
  return privateRanges.check(plain, family) ? 1 : 0;
}

/**
 * Follows redirects and resolves with the answer's head, whatever its status. Faults: `unavailable` (not reached, stalled),
 * `forbidden` (a redirect that must not be followed), `cancelled`.
 */
export async function httpGet(parts: HttpGetParts, request: GetRequest): Promise<GetResponse> {
  let { url, headers } = request;
  for (let hop = 0; ; hop++) {
    const response = await once(parts, { ...request, url, headers });
    const location = response.headers.location;
    if (![301, 302, 303, 307, 308].includes(response.status) || location === undefined) return response;
    response.discard();
    if (hop === maxRedirects) throw new Fault('unavailable', `${url.host} redirects more than ${maxRedirects} times`);
    const next = nextUrl(location, url);
    checkStep(parts, url, next);
    if (next.host !== url.host) headers = withoutAuthorization(headers);
    url = next;
  }
}

/** Refuses to go from one URL to another one that is less protected. */
export function checkStep(parts: Pick<HttpGetParts, 'insecure'>, from: URL, to: URL): void {
  if (to.protocol === 'https:') return;
  if (
    to.protocol === 'http:' &&
    from.protocol === 'http:' &&
    (to.host === from.host || parts.insecure.has(hostPort(to)))
  )
    return;
  throw new Fault('forbidden', `${from.host} sends us to ${to.protocol}//${to.host}, which is not protected by TLS`, {
    remedy: 'have the registry answer with https:// addresses, or configure that host as an insecure registry',
  });
}

/** HOST:PORT with the port always there. */
export function hostPort(url: URL): string {
  return `${url.hostname}:${url.port || (url.protocol === 'https:' ? '443' : '80')}`;
}

function nextUrl(location: string, from: URL): URL {
  try {
    return new URL(location, from);
  } catch {
    throw new Fault('unavailable', `${from.host} redirects to "${location.slice(0, 200)}", which is not an address`);
  }
}

function withoutAuthorization(headers: Readonly<Record<string, string>>): Record<string, string> {
  const { authorization: _dropped, ...rest } = headers;
  return rest;
}

function once(parts: HttpGetParts, { url, headers, origin, signal }: GetRequest): Promise<GetResponse> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(cancelled(signal));
    const own = url.host === origin.host;
    const limit = own ? 3 : (origin.reach ?? 0);
    if (isIP(url.hostname.replace(/^\[|\]$/g, '')) && !allowed(reachOf(url.hostname), own, limit))
      return reject(tooNear(url, origin));
    const secure = url.protocol === 'https:';
    const sent = (secure ? https : http).request(url, {
      headers: { 'user-agent': 'gantry', ...headers },
      agent: secure ? parts.secureAgent : parts.plainAgent,
      lookup: guardedLookup(url, origin, own, limit),
    });
    let timer = parts.clock.after(parts.connectTimeoutMs, () =>
      sent.destroy(new Silence(`${url.host} does not answer: no connection in ${parts.connectTimeoutMs} ms`)),
    );
    sent.on('finish', () => {
      timer.cancel();
      timer = parts.clock.after(parts.stallMs, () =>
        sent.destroy(new Silence(`${url.host} took the request but did not answer it in ${parts.stallMs} ms`)),
      );
    });
    const abort = () => sent.destroy(cancelled(signal));
    signal?.addEventListener('abort', abort, { once: true });
    const settle = () => timer.cancel();
    sent.on('error', (error) => {
      settle();
      signal?.removeEventListener('abort', abort);
      reject(faultOf(error, url));
    });
    sent.on('response', (response) => {
      settle();
      const near = response.socket?.remoteAddress;
      if (own && near) origin.reach = reachOf(near);
      resolve({
        status: response.statusCode ?? 0,
        headers: response.headers,
        body: bodyOf(parts, response, url, () => signal?.removeEventListener('abort', abort)),
        discard: () => {
          signal?.removeEventListener('abort', abort);
          response.on('error', () => {});
          response.destroy();
        },
      });
    });
    sent.end();
  });
}

function allowed(reach: Reach, own: boolean, limit: Reach): boolean {
  return own || (reach <= limit && reach !== 3);
}

/** Checks the address that will be connected to, not the name: the two can differ from one look to the next. */
function guardedLookup(url: URL, origin: Origin, own: boolean, limit: Reach): LookupFunction {
  return (hostname, options, callback) => {
    dnsLookup(hostname, { ...options, all: true }, (error, found) => {
      const addresses = (found ?? []) as LookupAddress[];
      const fine = addresses.filter(({ address }) => allowed(reachOf(address), own, limit));
      if (error) return callback(error, '', 0);
      if (fine.length === 0) return callback(tooNear(url, origin) as NodeJS.ErrnoException, '', 0);
      if (options.all) return callback(null, fine);
      callback(null, fine[0]!.address, fine[0]!.family);
    });
  };
}

async function* bodyOf(
  parts: HttpGetParts,
  response: http.IncomingMessage,
  url: URL,
  done: () => void,
): AsyncGenerator<Buffer> {
  const chunks = response[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let windowMs = 0;
  let windowBytes = 0;
  const stalled = () => new Fault('unavailable', `${url.host} stopped sending: nothing more in ${parts.stallMs} ms`);
  try {
    for (;;) {
      const before = parts.clock.monotonic();
      const timer = parts.clock.after(parts.stallMs, () => response.destroy(stalled()));
      const next = await chunks.next().finally(() => timer.cancel());
      if (next.done) return;
      windowMs += parts.clock.monotonic() - before;
      windowBytes += next.value.length;
      if (windowMs >= parts.stallMs) {
        if (windowBytes < (minBytesPerSecond * windowMs) / 1000) throw stalled();
        windowMs = 0;
        windowBytes = 0;
      }
      yield next.value;
    }
  } catch (error) {
    throw faultOf(error, url);
  } finally {
    done();
    if (!response.complete) {
      response.on('error', () => {});
      response.destroy();
    }
  }
}

/** Nobody answered in time: waiting as long again would try the patience of people. */
export class Silence extends Fault {
  constructor(
    message: string,
    options: { readonly cause?: unknown; readonly remedy: string } = { remedy: 'check that this node can reach it' },
  ) {
    super('unavailable', message, options);
  }
}

function tooNear(url: URL, origin: Origin): Fault {
  return new Fault(
    'forbidden',
    `the registry ${origin.host} sends us to ${url.host}, which lies inside our own network`,
    {
      remedy: 'a registry may only refer to hosts as public as itself',
    },
  );
}

function cancelled(signal: AbortSignal | undefined): Fault {
  return signal?.reason instanceof Fault ? signal.reason : new Fault('cancelled', 'the pull was cancelled');
}

const reasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOTFOUND: 'there is no host of that name',
  EAI_AGAIN: 'its name cannot be looked up now',
  ECONNRESET: 'it broke the connection',
  EHOSTUNREACH: 'there is no route to it',
  ENETUNREACH: 'there is no route to it',
  ETIMEDOUT: 'it does not answer',
  EPROTO: 'it does not speak TLS: configure it as an insecure registry if that is meant',
  ERR_SSL_WRONG_VERSION_NUMBER: 'it does not speak TLS: configure it as an insecure registry if that is meant',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'it does not speak TLS: configure it as an insecure registry if that is meant',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is signed by itself',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is of an unknown CA',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is of an unknown CA',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its certificate is of an unknown CA',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name',
};

function faultOf(error: unknown, url: URL): Fault {
  if (error instanceof Fault) return error;
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const message = `the registry ${url.host} is not reached: ${reasons[code] ?? (code || String(error))}`;
  const options = { cause: error, remedy: 'check its name, and that this node can reach it' };
  // The kernel has tried for seconds before it says so.
  if (code === 'EHOSTUNREACH' || code === 'ETIMEDOUT') return new Silence(message, options);
  return new Fault('unavailable', message, options);
}
