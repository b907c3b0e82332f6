/** Registries for tests: Debian's docker-registry on loopback, plain, behind a password, or behind a token service. */
import { execFileSync } from 'node:child_process';
import { createSign, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import { startProcess } from './process.ts';

export interface TestRegistry {
  /** 127.0.0.1:PORT */
  readonly host: string;
  /** For pushes where a login is wanted. */
  readonly pushHeaders: Record<string, string>;
  stop(): Promise<void>;
}

export const testLogin = { username: 'gantry', password: 'correct horse' } as const;
const basic = `Basic ${Buffer.from(`${testLogin.username}:${testLogin.password}`).toString('base64')}`;

/** Starts a registry with an empty store. `auth: basic` takes `testLogin`; plain takes everybody. */
export async function startRegistry(auth: 'none' | 'basic' = 'none'): Promise<TestRegistry> {
  const directory = await mkdtemp(join(tmpdir(), 'gantry-registry-'));
  const port = await freePort();
  const env: Record<string, string> = {
    REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: join(directory, 'data'),
    REGISTRY_HTTP_ADDR: `127.0.0.1:${port}`,
    OTEL_TRACES_EXPORTER: 'none',
  };
  if (auth === 'basic') {
    const line = execFileSync('htpasswd', ['-Bbn', testLogin.username, testLogin.password]);
    await writeFile(join(directory, 'htpasswd'), line);
    Object.assign(env, {
      REGISTRY_AUTH: 'htpasswd',
      REGISTRY_AUTH_HTPASSWD_REALM: 'test',
      REGISTRY_AUTH_HTPASSWD_PATH: join(directory, 'htpasswd'),
    });
  }
  await writeFile(
    join(directory, 'config.yml'),
    `version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: ${directory}/data}, delete: {enabled: true}}\nhttp: {addr: '127.0.0.1:${port}'}\n`,
  );
  const running = startProcess('docker-registry', ['serve', join(directory, 'config.yml')], env);
  const host = `127.0.0.1:${port}`;
  await eventually(async () => {
    if (running.exited) throw new Error(`docker-registry did not start: ${running.output()}`);
    return [200, 401].includes((await fetch(`http://${host}/v2/`)).status);
  });
  return {
    host,
    pushHeaders: auth === 'basic' ? { authorization: basic } : {},
    async stop() {
      await running.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

export interface TokenRegistry extends TestRegistry {
  /** Logins the token service was shown, in order; '' for none. */
  readonly shown: string[];
}

/** A registry that wants bearer tokens, signed by a token service at `HOST/token` of the same port: a proxy in front of a plain one. */
export async function startTokenRegistry(): Promise<TokenRegistry> {
  const behind = await startRegistry();
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const shown: string[] = [];
  const issued = new Set<string>();
  const server = http.createServer((request, response) => {
    const url = new URL(request.url!, 'http://registry');
    if (url.pathname === '/token') {
      shown.push(request.headers.authorization ?? '');
      if (request.headers.authorization !== basic) return void response.writeHead(401).end();
      const token = sign(privateKey, url.searchParams.get('scope') ?? '');
      issued.add(token);
      return void response
        .writeHead(200, { 'content-type': 'application/json' })
        .end(JSON.stringify({ token, expires_in: 60 }));
    }
    const token = /^Bearer (.*)$/.exec(request.headers.authorization ?? '')?.[1];
    if (request.method === 'GET' && !(token && issued.has(token))) {
      const realm = `http://${request.headers.host}/token`;
      return void response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}",service="test"` }).end();
    }
    const { authorization: _gone, ...headers } = request.headers;
    const onward = http.request(
      { host: '127.0.0.1', port: behind.host.split(':')[1], path: request.url, method: request.method, headers },
      (answer) => {
        response.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(response);
      },
    );
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  const host = await listen(server);
  return {
    host,
    shown,
    pushHeaders: {},
    async stop() {
      await closeServer(server);
      await behind.stop();
    },
  };
}

/** Something between a client and a registry that may spoil answers. Return true to have answered. */
export type Spoiler = (request: http.IncomingMessage, response: http.ServerResponse) => boolean;

/** A proxy in front of a registry, for faults; `requests` has every request's line and headers. */
export async function startSpoiledRegistry(
  behind: string,
  spoil: Spoiler,
): Promise<{
  readonly host: string;
  readonly requests: { url: string; headers: http.IncomingHttpHeaders }[];
  stop(): Promise<void>;
}> {
  const requests: { url: string; headers: http.IncomingHttpHeaders }[] = [];
  const server = http.createServer((request, response) => {
    requests.push({ url: request.url!, headers: request.headers });
    if (spoil(request, response)) return;
    const [host, port] = behind.split(':');
    http
      .request(
        { host, port, path: request.url, method: request.method, headers: { ...request.headers, host: behind } },
        (answer) => {
          response.writeHead(answer.statusCode!, answer.headers);
          answer.pipe(response);
        },
      )
      .end();
  });
  return { host: await listen(server), requests, stop: () => closeServer(server) };
}

/** Listens on a free port of loopback; resolves to 127.0.0.1:PORT. */
export async function listen(server: http.Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Ends a server and whatever is connected to it. */
export async function closeServer(server: http.Server): Promise<void> {
  server.closeAllConnections();
  await new Promise<void>((resolve) => server.close(() => resolve()));
}

/** A port of loopback that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

function sign(key: KeyObject, scope: string): string {
  return createSign('sha256').update(`${scope}${Math.random()}`).sign(key, 'base64url');
}
