/** What is said of the cluster as a whole. */
import { expect, it } from 'vitest';
import { info } from '#control-plane/api/info.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { operatorLab } from '#test/support/operator.ts';

it('says of each manager whether it leads, follows or does not answer', async () => {
  const said: Readonly<Record<string, number | undefined>> = { 'm1:7400': undefined, 'm2:7400': 3 };
  const { parts } = operatorLab({
    addresses: ['m1:7400', 'm2:7400', 'm3:7400'],
    async probe(address) {
      if (address in said) return said[address];
      throw new Fault('unavailable', `${address} does not answer`);
    },
  });
  expect((await info(parts)).managers).toEqual([
    { address: 'm1:7400', state: 'follows' },
    { address: 'm2:7400', state: 'leads' },
    { address: 'm3:7400', state: 'silent' },
  ]);
});
