/** What of an operator's table is copied for published ports: input chains and what they lead to, and nothing that could not be said again. */
import { expect, it } from 'vitest';
import { copyText } from '#net/host/host-firewall.ts';

const table = (...blocks: string[]) => `table inet mine { # handle 3\n${blocks.join('\n\n')}\n}\n`;
const chain = (name: string, ...lines: string[]) =>
  [`\tchain ${name} { # handle 1`, ...lines.map((line) => `\t\t${line}`), '\t}'].join('\n');

it('is nothing of a table that says nothing of packets to the host', () => {
  const forward = chain('f', 'type filter hook forward priority filter; policy drop;', 'tcp dport 80 drop # handle 2');
  const nat = chain('n', 'type nat hook input priority 100; policy accept;', 'tcp dport 80 snat to 10.0.0.1');
  expect(copyText(table(forward, nat))).toEqual({ body: '', left: [] });
});

it('is the chain for the time before translation, its policy as the last rule, without handles and counts', () => {
  const input = chain(
    'in',
    'type filter hook input priority filter - 5; policy drop;',
    'tcp dport 22 counter packets 12 bytes 900 accept # handle 4',
  );
  const { body } = copyText(table(input));
  expect(body).toContain('type filter hook prerouting priority -101; policy accept;\nmeta l4proto . th dport != @');
  expect(body).toContain('tcp dport 22 counter accept');
  expect(body.trimEnd()).toMatch(/drop\n\}$/);
  expect(body).not.toMatch(/handle|hook input/);
});

it('has the sets, and the chains that are led to, each before who leads to it', () => {
  const set = '\tset s {\n\t\ttype inet_service\n\t\telements = { 80 }\n\t}';
  const map = '\tmap m {\n\t\ttype inet_service : verdict\n\t\telements = { 81 : goto deep }\n\t}';
  const { body } = copyText(
    table(
      set,
      map,
      chain('in', 'type filter hook input priority filter; policy accept;', 'jump first', 'tcp dport vmap @m'),
      chain('first', 'tcp dport @s jump second'),
      chain('second', 'drop'),
      chain('deep', 'reject'),
      chain('other', 'accept'),
    ),
  );
  const at = (text: string) => body.indexOf(text);
  for (const name of ['set s', 'map m', 'chain first', 'chain second', 'chain deep'])
    expect(at(name)).toBeGreaterThan(-1);
  expect(at('chain second')).toBeLessThan(at('chain first'));
  expect(at('chain other')).toBe(-1);
});

it('leaves out what only iptables understands, and says what', () => {
  const input = chain(
    'INPUT',
    'type filter hook input priority filter; policy accept;',
    'tcp dport 80 xt match string counter packets 0 bytes 0 drop # handle 9',
    'tcp dport 81 drop # handle 10',
  );
  const { body, left } = copyText(table(input));
  expect(left).toEqual(['tcp dport 80 xt match string counter drop']);
  expect(body).toContain('tcp dport 81 drop');
  expect(body).not.toContain('xt match');
});
