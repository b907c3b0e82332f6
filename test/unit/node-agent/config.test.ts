/** What the agent's flags mean. */
import { describe, expect, it } from 'vitest';
import { readConfig } from '#node-agent/config.ts';

const minimal = ['--advertise', '10.0.0.1', '--control-plane', '10.0.0.250:7400', '--name', 'h1'];

describe('--ended-logs-mib', () => {
  it('bounds the logs of ended tasks; without it the agent does', () => {
    expect(readConfig([...minimal, '--ended-logs-mib', '512'])?.endedLogsBytes).toBe(512 * 2 ** 20);
    expect(readConfig(minimal)?.endedLogsBytes).toBeUndefined();
  });

  it.each(['0', '1x', '-1', '1.5'])('is refused as "%s"', (text) => {
    expect(() => readConfig([...minimal, `--ended-logs-mib=${text}`])).toThrow(/not a number of MiB/);
  });
});
