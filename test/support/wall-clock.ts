/** Wall clocks of hosts that are off, and step: libfaketime under agent, watchdog, conmon and control plane. Other clocks go on as they are. */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hostLayout } from '#node-agent/sandbox/layout.ts';
import type { Settings } from '#node-agent/sandbox/protocol.ts';
import type { Cluster } from './cluster.ts';

const library = `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/faketime/libfaketimeMT.so.1`;
const clockFile = 'sandbox/clock';

/** A step is noticed after so long at most. */
export const noticedMs = 1_000;

/** What hosts are to be started with whose clocks are to be set: until then they are right. */
export function settableClocks(...hosts: readonly string[]): Settings {
  return Object.fromEntries(hosts.map((host) => [host, faked({ FAKETIME_TIMESTAMP_FILE: `/run/${clockFile}` })]));
}

/** The same of a host whose clock is off from its first moment. */
export function wrongClock(host: string, aheadSeconds: number): Settings {
  return { [host]: faked({ FAKETIME: signed(aheadSeconds) }) };
}

function faked(variables: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  if (!existsSync(library)) throw new Error(`there is no ${library}: install faketime`);
  return {
    LD_PRELOAD: library,
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    FAKETIME_DISABLE_SHM: '1',
    FAKETIME_CACHE_DURATION: String(noticedMs / 1_000),
    ...variables,
  };
}

const signed = (seconds: number) => `${seconds < 0 ? '-' : '+'}${Math.abs(seconds)}`;

/** The host's clock steps to so far ahead of the right time; 0: to it. */
export function setClock({ sandbox }: Cluster, host: string, aheadSeconds: number): void {
  const file = join(hostLayout(sandbox.layout, host).run, clockFile);
  if (aheadSeconds === 0) rmSync(file, { force: true });
  else writeFileSync(file, `${signed(aheadSeconds)}\n`);
}
