/** The client of these stories counts as failed what a good client of HTTP could not have helped, and nothing else. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { systemClock } from '#proto/kernel/clock.ts';
import { eventually } from '#test/support/eventually.ts';
import type { LoadReport } from '#test/support/load-process.ts';
import { endsWithTest } from '#test/support/process.ts';

const loadProcess = join(import.meta.dirname, '../../support/load-process.ts');

test('kept connections that are closed between two answers, and late answers, are no failures; no answer at all is one', async () => {
  let refusing = false;
  const server = http.createServer(({ socket }, answer) => {
    if (refusing) {
      socket.destroy();
      return;
    }
    // Longer than the client takes to its next request by the same connection: one waits for the other.
    systemClock.after(Math.random() * 160, () =>
      answer.end('well\n', () => answers(socket) % 7 === 0 && socket.destroy()),
    );
  });
  const counts = new WeakMap<object, number>();
  const answers = (socket: object) => {
    const count = (counts.get(socket) ?? 0) + 1;
    counts.set(socket, count);
    return count;
  };
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const directory = mkdtempSync(join(tmpdir(), 'client-'));
  try {
    const ask = async (isEnough: () => boolean) => {
      const stopFile = join(directory, `stop-${refusing}`);
      const target = `127.0.0.1:${(server.address() as AddressInfo).port}`;
      const line = [...endsWithTest, process.execPath, loadProcess, '200', '/', 'well', stopFile, target];
      const load = spawn('setpriv', line, { stdio: ['ignore', 'pipe', 'inherit'] });
      await eventually(isEnough);
      writeFileSync(stopFile, '');
      return JSON.parse(await text(load.stdout)) as LoadReport;
    };
    let asked = 0;
    server.on('request', () => asked++);
    const report = await ask(() => asked > 1_400);
    expect(report.bad).toEqual([]);
    expect(report.good).toBe(report.asked);
    expect(report.retried).toBeGreaterThan(10);
    refusing = true;
    asked = 0;
    const refused = await ask(() => asked > 20);
    expect(refused.good).toBe(0);
    expect(refused.bad[0]).toMatch(/ new :\d+ ECONNRESET$/);
  } finally {
    server.close();
    server.closeAllConnections();
    rmSync(directory, { recursive: true, force: true });
  }
});
