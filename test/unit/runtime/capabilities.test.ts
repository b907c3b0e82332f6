/** Containers hold few capabilities, and those they are given. */
import { describe, expect, it } from 'vitest';
import {
  allCapabilities,
  capabilities,
  capabilitiesOfMask,
  defaultCapabilities,
} from '#node-agent/runtime/capabilities.ts';

const held = (add: string[], drop: string[], ofHost = allCapabilities) =>
  capabilities({ add, drop, privileged: false }, ofHost);

describe('capabilities', () => {
  it('are ten by default, none of them Docker’s riskier four', () => {
    expect([...held([], [])].sort()).toEqual([...defaultCapabilities].sort());
    for (const name of ['NET_RAW', 'MKNOD', 'AUDIT_WRITE', 'SETFCAP'])
      expect(held([], [])).not.toContain(`CAP_${name}`);
  });

  it('are added and dropped by name, in any spelling', () => {
    expect(held(['net_admin', 'CAP_SYS_TIME'], ['chown'])).toEqual(
      expect.arrayContaining(['CAP_NET_ADMIN', 'CAP_SYS_TIME', 'CAP_KILL']),
    );
    expect(held(['net_admin'], ['chown'])).not.toContain('CAP_CHOWN');
  });

  it('are only what is added where all are dropped', () => {
    expect(held(['NET_BIND_SERVICE'], ['ALL'])).toEqual(['CAP_NET_BIND_SERVICE']);
    expect(held([], ['all'])).toEqual([]);
  });

  it('are all of the host where all are added, without those dropped', () => {
    const ofHost = allCapabilities.filter((name) => name !== 'CAP_SYS_RESOURCE');
    expect(held(['ALL'], ['SYS_ADMIN'], ofHost)).toEqual(ofHost.filter((name) => name !== 'CAP_SYS_ADMIN'));
  });

  it('are refused where they do not exist, or the host has them not', () => {
    expect(() => held(['FLY'], [])).toThrow(expect.objectContaining({ code: 'invalid' }));
    expect(() => held([], ['FLY'])).toThrow(expect.objectContaining({ code: 'invalid' }));
    expect(() => held(['SYS_RESOURCE'], [], defaultCapabilities)).toThrow(
      expect.objectContaining({ code: 'unsupported' }),
    );
  });

  it('are read from a mask of the kernel', () => {
    expect(allCapabilities).toHaveLength(41);
    expect(capabilitiesOfMask('00000000000405fb')).toEqual(held([], []));
    expect(capabilitiesOfMask('000001ffffffffff')).toEqual(allCapabilities);
  });
});
