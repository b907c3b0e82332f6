/** Probes over the network that the agent makes itself, from within the task's own: HTTP, TCP, and gRPC's health protocol. Nothing is spawned. */
import http from 'node:http';
import http2 from 'node:http2';
import type { Socket } from 'node:net';
import tls from 'node:tls';
import type { GrpcProbe, HttpProbe, TcpProbe } from '#proto/model/probe.ts';
import type { HealthCheck } from '#proto/model/service.ts';

/** A socket that is about to connect from the network of the process `pid`. Throws where there is none. */
export type ConnectFrom = (pid: number, host: string, port: number) => Socket;

export interface ProbeTarget {
  /** A process in the task's network. */
  readonly pid: number;
  /** The task's own, as others reach it: what only listens on the loopback is of no use to them. */
  readonly address: string;
}

/** What was answered; rejects, in words, where that is not good. */
type Answer = Promise<string>;

/** The probe that a check asks for; undefined: it asks for a command. `signal` aborts when its time is up. */
export function networkProbe(
  check: Pick<HealthCheck, 'http' | 'tcp' | 'grpc'>,
): ((connect: ConnectFrom, target: ProbeTarget, signal: AbortSignal) => Answer) | undefined {
  const { http, tcp, grpc } = check;
  if (http) return (connect, target, signal) => probeHttp(http, connect, target, signal);
  if (tcp) return (connect, target, signal) => probeTcp(tcp, connect, target, signal);
  if (grpc) return (connect, target, signal) => probeGrpc(grpc, connect, target, signal);
  return undefined;
}

/** What is read of an answer. */
const mostBytes = 4_096;

function probeTcp(
  { port }: TcpProbe,
  connect: ConnectFrom,
  { pid, address }: ProbeTarget,
  signal: AbortSignal,
): Answer {
  const socket = connect(pid, address, port);
  return settled(
    signal,
    () => socket.destroy(),
    (resolve, reject) => {
      socket.on('connect', () => resolve(`port ${port} takes connections`));
      socket.on('error', reject);
    },
  );
}

function probeHttp(probe: HttpProbe, connect: ConnectFrom, target: ProbeTarget, signal: AbortSignal): Answer {
  const { port, path, scheme, headers, statuses } = probe;
  const socket = connect(target.pid, target.address, port);
  // Certificates are for names; who is asked here is known by its address.
  const secured = () => tls.connect({ socket, rejectUnauthorized: false });
  const request = http.request({
    method: 'GET',
    host: target.address,
    port,
    path,
    headers: { 'User-Agent': 'gantry', Connection: 'close', ...headers },
    createConnection: () => (scheme === 'https' ? secured() : socket),
  });
  const end = () => {
    request.destroy();
    socket.destroy();
  };
  return settled(signal, end, (resolve, reject) => {
    request.on('error', reject);
    socket.on('error', reject);
    request.on('response', (response) => {
      const { statusCode = 0, statusMessage = '' } = response;
      const isGood = statuses.some(({ from, to }) => from <= statusCode && statusCode <= to);
      let body = '';
      const done = () => {
        const words = `GET ${path}: ${statusCode} ${statusMessage}${body === '' ? '' : `\n${body.slice(0, mostBytes)}`}`;
        if (isGood) resolve(words);
        else reject(new Error(words));
      };
      response.on('data', (chunk) => {
        body += chunk;
        if (body.length >= mostBytes) done();
      });
      response.on('end', done);
      response.on('error', done);
    });
    request.end();
  });
}

/** Check of grpc.health.v1.Health, over HTTP/2 in clear. */
function probeGrpc(probe: GrpcProbe, connect: ConnectFrom, { pid, address }: ProbeTarget, signal: AbortSignal): Answer {
  const socket = connect(pid, address, probe.port);
  const session = http2.connect(`http://${address}:${probe.port}`, { createConnection: () => socket });
  const end = () => {
    session.destroy();
    socket.destroy();
  };
  return settled(signal, end, (resolve, reject) => {
    session.on('error', reject);
    socket.on('error', reject);
    const call = session.request({
      ':method': 'POST',
      ':path': '/grpc.health.v1.Health/Check',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const chunks: Buffer[] = [];
    let status = '';
    let message = '';
    const hear = (fields: http2.IncomingHttpHeaders) => {
      status = String(fields['grpc-status'] ?? status);
      message = String(fields['grpc-message'] ?? message);
    };
    call.on('response', hear);
    call.on('trailers', hear);
    call.on('data', (chunk: Buffer) => chunks.push(chunk));
    call.on('error', reject);
    call.on('end', () => {
      const what = probe.service === '' ? 'the server' : `service ${probe.service}`;
      if (status !== '0') reject(new Error(`${what}: gRPC status ${status || 'missing'}${message && `, ${message}`}`));
      else if (servingStatus(Buffer.concat(chunks)) === 1) resolve(`${what} is SERVING`);
      else reject(new Error(`${what} is ${statusNames[servingStatus(Buffer.concat(chunks))] ?? 'UNKNOWN'}`));
    });
    call.end(checkRequest(probe.service));
  });
}

const statusNames = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'];

/** HealthCheckRequest { string service = 1 }, framed. */
function checkRequest(service: string): Buffer {
  const text = Buffer.from(service);
  const message = text.length === 0 ? text : Buffer.concat([Buffer.from([0x0a, ...varint(text.length)]), text]);
  const frame = Buffer.alloc(5);
  frame.writeUInt32BE(message.length, 1);
  return Buffer.concat([frame, message]);
}

function varint(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)];
}

/** HealthCheckResponse { ServingStatus status = 1 }, framed; a status of 0 is not sent. */
function servingStatus(frame: Buffer): number {
  return frame[5] === 0x08 ? (frame[6] ?? 0) : 0;
}

/** Ends what was begun however it comes out. */
function settled(
  signal: AbortSignal,
  end: () => void,
  begin: (resolve: (words: string) => void, reject: (error: Error) => void) => void,
): Answer {
  return new Promise<string>((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    begin(resolve, reject);
  }).finally(end);
}
