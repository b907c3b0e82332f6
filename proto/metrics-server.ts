/** The HTTP door that monitoring knocks at: `/metrics` (Prometheus text) and `/healthz`. Plain HTTP, so on loopback unless told. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';
import { describe, Fault } from './kernel/errors.ts';

export interface MetricsServerParts {
  readonly registry: Registry;
  /** Why it is not well, in words; undefined: it is. */
  readonly ailment: () => string | undefined;
  readonly address?: string;
  /** 0: any free one. */
  readonly port: number;
}

export interface MetricsServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Serves until closed. Fault `unavailable` where the address is taken or not ours. */
export async function serveMetrics(parts: MetricsServerParts): Promise<MetricsServer> {
  const { address = '127.0.0.1', port, registry } = parts;
  const answer = async (
    path: string,
  ): Promise<{ readonly status: number; readonly type: string; readonly body: string }> => {
    if (path === '/metrics') return { status: 200, type: registry.contentType, body: await registry.metrics() };
    if (path !== '/healthz') return { status: 404, type: 'text/plain', body: 'there are /metrics and /healthz\n' };
    const ailment = parts.ailment();
    return { status: ailment === undefined ? 200 : 503, type: 'text/plain', body: `${ailment ?? 'ok'}\n` };
  };
  const server = http.createServer((request, response) => {
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return void response.writeHead(405, { allow: 'GET, HEAD' }).end();
    answer(new URL(request.url ?? '/', 'http://metrics').pathname).then(
      ({ status, type, body }) => response.writeHead(status, { 'content-type': type }).end(body),
      (error) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${describe(error)}\n`),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        new Fault('unavailable', `cannot serve metrics at ${address}:${port}: ${error.message}`, {
          cause: error,
          remedy: 'stop what uses it, or choose another --metrics-port',
        }),
      ),
    );
    server.listen(port, address, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
