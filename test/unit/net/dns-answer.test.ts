/** Which names a task may ask for, and what it is told. */
import { describe, expect, it } from 'vitest';
import { answer, dnsView } from '#net/dns/answer.ts';
import { backend, endpoint } from '#test/support/endpoint.ts';

const web = endpoint('web', {
  aliases: ['www'],
  backends: [
    backend('10.192.1.2', { slot: 1 }),
    backend('10.192.2.2', { slot: 2 }),
    backend('10.192.2.3', { slot: 3, serving: false }),
  ],
});
const db = endpoint('db', {
  mode: 'dnsrr',
  vip: '',
  backends: [backend('10.192.1.4'), backend('10.192.2.4', { slot: 2 })],
});
const otherWeb = endpoint('web', { project: 'blog', vip: '10.224.0.9', backends: [backend('10.192.3.2')] });
const agent = endpoint('agent', {
  project: 'blog',
  vip: '10.224.0.10',
  backends: [backend('10.192.3.3', { slot: 0, nodeName: 'h3' })],
});
const view = dnsView({
  domain: 'gantry.internal',
  network: '10.192.0.0/11',
  vipNetwork: '10.224.0.0/14',
  endpoints: [web, db, otherWeb, agent],
});
const ofShop = '10.192.1.2';
const ofBlog = '10.192.3.2';
const ask = (name: string, source = ofShop, type = 'A', turn = 0) => {
  const result = answer(view, { name, type }, source, turn);
  if (result.kind !== 'records') return result.kind;
  return result.records.map((record) => (record.type === 'A' ? record.address : record.target));
};

describe('names', () => {
  it.each([
    ['web', ['10.224.0.2']],
    ['WEB.', ['10.224.0.2']],
    ['www', ['10.224.0.2']],
    ['web.shop', ['10.224.0.2']],
    ['web.blog', ['10.224.0.9']],
    ['web.shop.gantry.internal', ['10.224.0.2']],
    ['web.gantry.internal', ['10.224.0.2']],
    ['tasks.web', ['10.192.1.2', '10.192.2.2']],
    ['tasks.web.shop.gantry.internal', ['10.192.1.2', '10.192.2.2']],
    ['web.2', ['10.192.2.2']],
    ['2.web', ['10.192.2.2']],
    ['2.web.shop', ['10.192.2.2']],
    ['3.web', ['10.192.2.3']],
    ['db', ['10.192.1.4', '10.192.2.4']],
    ['agent.h3.blog', ['10.192.3.3']],
  ])('%s means what a task of its project expects', (name, addresses) => {
    expect(ask(name)).toEqual(addresses);
  });

  it('mean the own project first', () => {
    expect(ask('web', ofBlog)).toEqual(['10.224.0.9']);
    expect(ask('web', ofShop)).toEqual(['10.224.0.2']);
  });

  it('mean another project where only one has them, and nobody where two have', () => {
    expect(ask('db', ofBlog)).toEqual(['10.192.1.4', '10.192.2.4']);
    expect(ask('web', '10.192.1.1')).toBe('forward');
  });

  it('take turns', () => {
    expect(ask('db', ofShop, 'A', 1)).toEqual(['10.192.2.4', '10.192.1.4']);
  });

  it('have no IPv6 addresses, which is not the same as being unknown', () => {
    expect(ask('web', ofShop, 'AAAA')).toEqual([]);
    expect(ask('gone.gantry.internal', ofShop, 'AAAA')).toBe('unknown');
  });

  it('under our domain are unknown at once, others are passed on', () => {
    expect(ask('gone.shop.gantry.internal')).toBe('unknown');
    expect(ask('9.web.shop.gantry.internal')).toBe('unknown');
    expect(ask('example.com')).toBe('forward');
    expect(ask('notgantry.internal')).toBe('forward');
  });

  it('are found for addresses', () => {
    expect(ask('2.2.192.10.in-addr.arpa', ofShop, 'PTR')).toEqual(['2.web.shop.gantry.internal']);
    expect(ask('2.0.224.10.in-addr.arpa', ofShop, 'PTR')).toEqual(['web.shop.gantry.internal']);
    expect(ask('99.2.192.10.in-addr.arpa', ofShop, 'PTR')).toBe('unknown');
    expect(ask('8.8.8.8.in-addr.arpa', ofShop, 'PTR')).toBe('forward');
  });
});
