/** What probes make of what they see: sockets, traced rules, repairs, looks one after the other. */
import { describe, expect, it } from 'vitest';
import { broken, inLooks, isWrong, looked } from '#net/doctor/fact.ts';
import { isOpen, parseSockets } from '#net/doctor/listeners.ts';
import type { Met } from '#net/doctor/nft-trace.ts';
import { inHistory, isStubborn, RepairLog } from '#net/doctor/repair-log.ts';
import { conclude } from '#net/doctor/watch-probe.ts';
import { FakeClock } from '#test/support/fake-clock.ts';

describe('the table of sockets', () => {
  const head = '  sl  local_address rem_address   st tx_queue rx_queue\n';

  it('gives those that listen, with their addresses', () => {
    const text = `${head}   0: 00000000:1F90 00000000:0000 0A 0:0\n   1: 0100007F:0035 00000000:0000 0A 0:0\n   2: 0200C00A:1F90 0300C00A:C001 01 0:0\n`;
    const found = parseSockets(text, 'tcp');
    expect(found).toEqual([
      { protocol: 'tcp', port: 8080, address: '0.0.0.0' },
      { protocol: 'tcp', port: 53, address: '127.0.0.1' },
    ]);
    expect(found.map(isOpen)).toEqual([true, false]);
  });

  it('reads IPv6, and addresses of IPv4 within it', () => {
    const any = '00000000000000000000000000000000';
    const loopback = '00000000000000000000000001000000';
    const mapped = '0000000000000000FFFF00000200C00A';
    const text = head + [any, loopback, mapped].map((address) => `  0: ${address}:0050 ${any}:0000 0A 0:0\n`).join('');
    expect(parseSockets(text, 'tcp6').map(({ address }) => address)).toEqual(['::', '::1', '10.192.0.2']);
  });

  it('takes datagram sockets that are bound for listening', () => {
    const text = `${head}   0: 00000000:0035 00000000:0000 07 0:0\n   1: 00000000:0036 0300C00A:C001 01 0:0\n`;
    expect(parseSockets(text, 'udp').map(({ port }) => port)).toEqual([53]);
  });
});

describe('what a traced packet met', () => {
  const header = {
    source: '10.192.1.2',
    destination: '10.192.2.2',
    protocol: 6,
    sourcePort: 61001,
    destinationPort: 80,
    incoming: 2,
    outgoing: 0,
  };
  const met = (chain: string, verdict: string, more: Partial<Met> = {}): Met => ({
    packet: 1,
    table: 'ip gantry',
    chain,
    type: 'rule',
    handle: '7',
    verdict,
    header,
    ...more,
  });

  it('ends with the rule that drops it, and how to remove that', () => {
    const drop = met('c', 'drop', { table: 'inet mine' });
    const facts = conclude(
      [met('prerouting', 'goto k1'), drop, met('never', 'accept')],
      new Map([['inet mine c 7', 'tcp dport 80 drop']]),
    );
    expect(facts.map(({ verdict, hop }) => `${verdict} ${hop}`)).toEqual(['good rules', 'broken firewall']);
    expect(facts[1]?.says).toBe(
      '10.192.1.2:61001 → 10.192.2.2:80 is dropped by the rule "tcp dport 80 drop" of chain c in table inet mine',
    );
    expect(facts[1]?.remedy).toContain('nft delete rule inet mine c handle 7');
  });

  it('names the policy of a chain where no rule decided', () => {
    const [fact] = conclude([met('FORWARD', 'drop', { table: 'ip filter', type: 'policy' })], new Map());
    expect(fact).toMatchObject({
      hop: 'firewall',
      says: expect.stringContaining('by the policy of chain FORWARD in table ip filter'),
    });
    expect(fact?.remedy).toContain('nft insert rule ip filter FORWARD');
  });

  it.each([
    ['m_1', 'reject with tcp reset', 'isolation'],
    ['incoming', 'iifname "gantry0" ether saddr . ip saddr != @sources drop', 'address'],
    ['forward', 'ip daddr 10.224.0.0/14 reject', 'vip'],
    ['forward', 'ip daddr @inside ip saddr != @inside ip saddr != @hosts drop', 'rules'],
    ['wire', 'ip daddr 10.192.0.0/11 drop', 'tunnel'],
  ])('of chain %s of ours, "%s" means %s', (chain, text, hop) => {
    expect(conclude([met(chain, 'drop')], new Map([[`ip gantry ${chain} 7`, text]]))[0]).toMatchObject({
      hop,
      verdict: 'broken',
    });
  });

  it('is the tunnel where the packet is one of a tunnel', () => {
    const outer = { ...header, protocol: 17, destinationPort: 4790 };
    const [fact] = conclude([met('input', 'drop', { table: 'ip filter', header: outer })], new Map());
    expect(fact).toMatchObject({ hop: 'tunnel', says: expect.stringContaining('(UDP 4790)') });
  });

  it('passes where nothing decided but policies that accept', () => {
    const facts = conclude([met('c', 'continue'), met('c', 'accept', { type: 'policy' })], new Map());
    expect(facts).toMatchObject([{ verdict: 'good', says: '10.192.1.2:61001 → 10.192.2.2:80 passes (in by link 2)' }]);
  });
});

describe('repairs', () => {
  it('again and again are somebody, until they have stopped for two seconds', async () => {
    const clock = new FakeClock();
    const log = new RepairLog(clock);
    for (let turn = 0; turn < 3; turn++) {
      log.note('route', 'route x was missing');
      await clock.pass(200);
    }
    log.note('sysctl', 'once');
    expect(log.recent().map(({ message, count }) => `${message} ${count}`)).toEqual([
      'route x was missing 3',
      'once 1',
    ]);
    expect(log.recent().map(isStubborn)).toEqual([true, false]);
    expect(inHistory(log.recent().slice(0, 1))).toContain('put right 3 times in the last minute');
    await clock.pass(2_000);
    expect(log.recent().map(isStubborn)).toEqual([false, false]);
    expect(inHistory(log.recent())).toBe('');
    await clock.pass(60_000);
    expect(log.recent()).toEqual([]);
  });

  it('of a flood are not all kept', () => {
    const log = new RepairLog(new FakeClock());
    for (let turn = 0; turn < 10_000; turn++) log.note('route', String(turn));
    expect(log.recent().length).toBeLessThanOrEqual(2_000);
  });
});

describe('looks one after the other', () => {
  it('count how often each thing was wrong', async () => {
    const clock = new FakeClock();
    let turn = 0;
    const seen = looked(clock, 100, 25, () => (turn++ % 2 === 0 ? ['route', 'route'] : []));
    await clock.pass(200);
    expect(await seen).toEqual({ looks: 5, wrong: new Map([['route', 3]]) });
    expect(inLooks(3, 5)).toBe(' in 3 of 5 looks');
    expect(inLooks(5, 5)).toBe('');
  });

  it('forgive a single one among many: a change was on its way', () => {
    expect([isWrong(1, 12), isWrong(2, 12), isWrong(3, 12), isWrong(1, 1)]).toEqual([false, false, true, true]);
  });

  it('say what to do about it', () => {
    expect(broken('route', 'gone', 'put it back')).toMatchObject({
      verdict: 'broken',
      remedy: 'put it back',
      subject: '',
    });
  });
});
