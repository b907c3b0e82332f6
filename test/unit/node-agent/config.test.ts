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

describe('a variable', () => {
  const env = { GANTRY_LOG_LEVEL: 'debug', GANTRY_SUBNET: '10.192.7.0/24', GANTRY_INSECURE_REGISTRY: 'a:1,b:2' };

  it('stands for a flag that was not given, or given nothing', () => {
    const told = readConfig([...minimal, '--subnet', ''], env);
    expect(told).toMatchObject({ logLevel: 'debug', subnet: '10.192.7.0/24', insecureRegistries: ['a:1', 'b:2'] });
    expect(
      readConfig([], { GANTRY_ADVERTISE: '10.0.0.1', GANTRY_CONTROL_PLANE: 'm:7400', GANTRY_NAME: 'h9' })?.name,
    ).toBe('h9');
  });

  it('is less than the flag', () => {
    expect(readConfig([...minimal, '--log-level', 'warn'], env)?.logLevel).toBe('warn');
  });
});

describe('--subnet', () => {
  it.each([
    ['10.192.7.0', 'is not an IPv4 range'],
    ['10.192.7.1/24', 'has host bits: its range is 10.192.7.0/24'],
    ['10.192.0.0/15', 'is not between /16 and /28'],
    ['10.192.7.0/29', 'is not between /16 and /28'],
  ])('%s is refused: it %s', (text, why) => {
    expect(() => readConfig([...minimal, '--subnet', text])).toThrow(`--subnet ${text} ${why}`);
  });
});
