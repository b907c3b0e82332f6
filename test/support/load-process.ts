/** A client outside of the cluster: asks for PATH on each HOST:PORT by turns, half of it on connections it keeps, until FILE exists; prints what came of it, and adds to FILE.silent who waits for long. */
import { appendFileSync, existsSync } from 'node:fs';
import http from 'node:http';
import type { Socket } from 'node:net';
import { setPriority } from 'node:os';
import { dirname } from 'node:path';

/** What `load-process.ts RATE PATH EXPECTED FILE HOST:PORT…` prints when it ends, as JSON. */
export interface LoadReport {
  readonly asked: number;
  readonly good: number;
  /** Requests on a reused connection that was closed before any byte of an answer, asked again on a new one (RFC 9112, 9.3.1). */
  readonly retried: number;
  /** Connections that were opened, and how many requests found one that was. */
  readonly opened: number;
  readonly reused: number;
  /** Why others failed, and when (ms since the start). */
  readonly bad: readonly string[];
  /** Those that took as long as if a packet had been lost; the same. */
  readonly slow: readonly string[];
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

const [rate = '200', path = '/', expected = '', stopFile = '', ...targets] = process.argv.slice(2);
const timeoutMs = 4_000;
const silentFile = `${stopFile}.silent`;
/** Connections kept for each target, and how many requests each is used for before the client lets it go. */
const keptForEach = 8;
const requestsOfOne = 60;

// It stands for other machines, which have time whatever the cluster's does: a late client takes longer than connections are drained.
setPriority(-10);
const startedAt = performance.now();
const bad: string[] = [];
const slow: string[] = [];
/** TCP sends a SYN again after a second. */
const slowMs = 950;
/** And again after two more: who has waited for so long is not merely slow. */
const silentMs = 1_500;
const times: number[] = [];
let [asked, good, retried, opened, reused] = [0, 0, 0, 0, 0];

const newAgent = () => new http.Agent({ keepAlive: true, maxSockets: 1, scheduling: 'fifo' });
const kept = targets.map(() => Array.from({ length: keptForEach }, () => ({ agent: newAgent(), used: 0 })));
/** Connections that have carried an answer. Node's `reusedSocket` says nothing of a request that waited for a connection while another used it. */
const used = new WeakSet<Socket>();

/** The connection to use next, of those that are kept. */
function nextKept(target: number, turn: number): http.Agent {
  const seat = kept[target]![turn % keptForEach]!;
  // Not all at once: each lives for a while of its own, and is not let go while somebody waits for an answer by it.
  if (++seat.used > requestsOfOne + 7 * (turn % keptForEach) && isIdle(seat.agent)) {
    seat.agent.destroy();
    seat.agent = newAgent();
    seat.used = 0;
  }
  return seat.agent;
}

function isIdle({ sockets, requests }: http.Agent): boolean {
  return Object.keys(sockets).length + Object.keys(requests).length === 0;
}

function ask(target: string, agent: http.Agent | false, isRetry: boolean, beganAt: number): void {
  const [host, port] = target.split(':');
  let answered = false;
  let isReused = false;
  let localPort: number | undefined;
  let ended = false;
  let connected = false;
  const silence = setTimeout(() => {
    const how = connected ? 'connected' : 'not connected';
    if (!ended) appendFileSync(silentFile, `${Math.round(beganAt - startedAt)} ms ${target} ${how} :${localPort}\n`);
  }, silentMs);
  const finish = (why?: string) => {
    if (ended) return;
    ended = true;
    clearTimeout(silence);
    const tookMs = performance.now() - beganAt;
    const kind = isReused ? 'kept' : `${isRetry ? 'retry' : 'new'}${connected ? '' : ' not connected'}`;
    const what = `${Math.round(beganAt - startedAt)}+${Math.round(tookMs)} ms ${target} ${kind} :${localPort}`;
    if (why !== undefined) {
      bad.push(`${what} ${why}`);
      return;
    }
    good++;
    times.push(tookMs);
    if (tookMs >= slowMs) slow.push(what);
  };
  const request = http.get({ host, port, path, agent, timeout: timeoutMs, headers: { 'x-asked': asked } }, (answer) => {
    answered = true;
    used.add(answer.socket);
    let text = '';
    answer.setEncoding('utf8').on('data', (data: string) => {
      text += data;
    });
    answer.on('error', (error: NodeJS.ErrnoException) => finish(`in the answer: ${error.code}`));
    answer.on('end', () => finish(text.trim() === expected ? undefined : `${answer.statusCode} ${text}`));
  });
  request.on('socket', (socket) => {
    isReused = used.has(socket);
    localPort = socket.localPort;
    if (isReused) {
      reused++;
      return;
    }
    opened++;
    socket.once('connect', () => {
      connected = true;
      localPort = socket.localPort;
    });
  });
  request.on('timeout', () => request.destroy(Object.assign(new Error('timeout'), { code: 'TIMEOUT' })));
  request.on('error', (error: NodeJS.ErrnoException) => {
    const isClosed = error.code === 'ECONNRESET' || error.code === 'EPIPE';
    if (isReused && isClosed && !answered && !isRetry) {
      ended = true;
      clearTimeout(silence);
      retried++;
      ask(target, false, true, beganAt);
    } else finish(error.code ?? error.message);
  });
}

const timer = setInterval(() => {
  // As many as are due: a late timer must not make it a smaller load.
  while (asked < ((performance.now() - startedAt) * Number(rate)) / 1_000) {
    const turn = asked++;
    const index = turn % targets.length;
    const pass = Math.floor(turn / targets.length);
    ask(targets[index]!, pass % 2 === 0 ? false : nextKept(index, pass >> 1), false, performance.now());
  }
  // Where its directory is gone, so is the test.
  if (!existsSync(dirname(stopFile))) process.exit(1);
  if (!existsSync(stopFile)) return;
  clearInterval(timer);
  setTimeout(report, timeoutMs + 500);
}, 5);

function report(): void {
  times.sort((a, b) => a - b);
  const quantile = (part: number) => Math.round(times[Math.floor((times.length - 1) * part)] ?? 0);
  const [p50Ms, p99Ms, maxMs] = [quantile(0.5), quantile(0.99), quantile(1)];
  const some = { bad: bad.slice(0, 50), slow: slow.slice(0, 50) };
  const said: LoadReport = { asked, good, retried, opened, reused, ...some, p50Ms, p99Ms, maxMs };
  process.stdout.write(`${JSON.stringify(said)}\n`);
  process.exit();
}
