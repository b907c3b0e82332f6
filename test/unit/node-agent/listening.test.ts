/** When a task without a health check serves. */
import { describe, expect, it } from 'vitest';
import { awaitedPorts, awaitListening, isListening, listeningPorts } from '#node-agent/task/listening.ts';
import type { Health } from '#proto/model/task.ts';
import { endpoint } from '#test/support/endpoint.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

const port = { target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' } as const;

describe('what a task is to listen on', () => {
  it('are the ports of its service, and those that its container exposes', () => {
    const web = endpoint('web', { measured: true, ports: [port, { ...port, target: 53, protocol: 'udp' }] });
    expect(awaitedPorts(web, { expose: [9090] })).toEqual(['tcp 80', 'udp 53', 'tcp 9090']);
  });

  it('is anything, where nothing is said and somebody may wait for it', () => {
    expect(awaitedPorts(endpoint('web', { measured: true, holdMs: 1_000 }), { expose: [] })).toBe('any');
    expect(isListening('any', new Set(['udp 40000']))).toBe(false);
    expect(isListening('any', new Set(['tcp 3000']))).toBe(true);
  });

  it('is not asked for where the service is not autoscaled', () => {
    expect(awaitedPorts(endpoint('web', { ports: [port] }), { expose: [] })).toBeUndefined();
    expect(awaitedPorts(undefined, { expose: [80] })).toBeUndefined();
  });

  it('is read out of the table of the kernel', () => {
    const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:0050 0100007F:A0F2 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:0 0 0 0 3 1
`;
    expect(listeningPorts(table)).toEqual([8080, 53]);
  });
});

describe('a task that is awaited', () => {
  const awaited = (health: Health, ready: () => boolean) => {
    const clock = new FakeClock();
    const said: Health[] = [];
    const waiting = awaitListening(clock, health, ready, (next) => said.push(next));
    return { clock, said, waiting };
  };

  it('is starting until it listens', async () => {
    let listens = false;
    const { clock, said } = awaited('', () => listens);
    expect(said).toEqual(['starting']);
    await clock.pass(500);
    listens = true;
    await clock.pass(50);
    expect(said).toEqual(['starting', '']);
  });

  it('says nothing where it listens at once', () => {
    expect(awaited('', () => true).said).toEqual([]);
  });

  it('is waited for by the next agent, too', () => {
    expect(awaited('starting', () => true).said).toEqual(['']);
  });

  it('is let go when it does not listen for half a minute', async () => {
    const { clock, said } = awaited('', () => false);
    await clock.pass(31_000);
    expect(said).toEqual(['starting', '']);
  });

  it('is forgotten when it ends', async () => {
    const { clock, said, waiting } = awaited('', () => false);
    waiting.stop();
    await clock.pass(60_000);
    expect(said).toEqual(['starting']);
  });
});
