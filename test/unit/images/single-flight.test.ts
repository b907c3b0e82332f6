/** Shared jobs: one run, left by those who give up, stopped when nobody is left. */
import { expect, it } from 'vitest';
import { SingleFlight } from '#node-agent/images/single-flight.ts';

it('a job that many ask for runs once, goes on while one of them waits, and stops with the last', async () => {
  const flights = new SingleFlight<string, string>();
  let runs = 0;
  let stopped = false;
  const { promise, resolve } = Promise.withResolvers<string>();
  const job = (signal: AbortSignal, notify: (note: string) => void) => {
    runs++;
    notify('begun');
    signal.addEventListener('abort', () => {
      stopped = true;
    });
    return promise;
  };
  const leaver = new AbortController();
  const left = flights.run('a', job, { signal: leaver.signal });
  const stayed = flights.run('a', job);
  leaver.abort(new Error('enough'));
  await expect(left).rejects.toThrow('enough');
  expect(stopped).toBe(false);
  resolve('done');
  expect(await stayed).toBe('done');
  expect(runs).toBe(1);

  const alone = new AbortController();
  const never = flights.run(
    'b',
    (signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    { signal: alone.signal },
  );
  alone.abort(new Error('gone'));
  await expect(never).rejects.toThrow('gone');
  expect(await flights.run('b', async () => 'again')).toBe('again');
});

it('a failed job is not remembered', async () => {
  const flights = new SingleFlight<string>();
  await expect(flights.run('a', async () => Promise.reject(new Error('once')))).rejects.toThrow('once');
  expect(await flights.run('a', async () => 'fine')).toBe('fine');
});
