/** Which registries are spoken to without TLS: as an operator says it, by name or by network. */
import { BlockList, isIPv4 } from 'node:net';
import { Fault } from '#proto/kernel/errors.ts';

/** Asked with a registry as references name it: `registry:5000`, `10.0.0.9:5000`. */
export type InsecureRegistries = Pick<ReadonlySet<string>, 'has'>;

/** Of `HOST[:PORT]`, which is that one registry, and `10.0.0.0/24`, which is every registry named by an address in it. Fault `invalid`. */
export function insecureRegistries(words: readonly string[]): InsecureRegistries {
  const names = new Set(words.filter((word) => !word.includes('/')));
  const networks = new BlockList();
  for (const word of words) {
    if (names.has(word)) continue;
    const [address = '', bits = '', ...more] = word.split('/');
    if (!isIPv4(address) || !/^\d{1,2}$/.test(bits) || Number(bits) > 32 || more.length > 0)
      throw new Fault('invalid', `"${word}" names no registry and no network`, {
        remedy: 'write HOST:PORT, or a network as 10.0.0.0/24',
      });
    networks.addSubnet(address, Number(bits), 'ipv4');
  }
  return {
    has(registry) {
      if (names.has(registry)) return true;
      const address = registry.replace(/:\d+$/, '');
      return isIPv4(address) && networks.check(address, 'ipv4');
    },
  };
}
